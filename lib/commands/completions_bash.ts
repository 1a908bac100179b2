/**
 * The completion script for bash. Bash splits words at `=` and `:`, so that
 * `--udp=plain` comes as three; its own completion package is not needed.
 *
 * @module
 */
import { CONFIG_DIRECTORY } from "../config.ts";
import { VERSION } from "../version.ts";
import {
  indent,
  optionCase,
  shellQuote,
  valueCase,
  valuePattern,
  verbatimNames,
  wordCase,
} from "./completions_case.ts";
import { COMMANDS } from "./table.ts";

/** The text of `wgd completions bash`. */
export function bashCompletions(): string {
  const commands = COMMANDS.map(({ name }) => shellQuote(name)).join(" ");
  return `# Completion of wgd ${VERSION} for bash; made by: wgd completions bash

# Offers those of the words that begin with what is typed.
_wgd_offer() {
  local word
  for word in "$@"; do
    [[ $word == "$cur"* ]] && COMPREPLY+=("$word")
  done
}

_wgd_commands() {
  _wgd_offer ${commands}
}

_wgd_interfaces() {
  local -a found
  read -ra found < <("$wgd" show interfaces 2>/dev/null)
  _wgd_offer "\${found[@]}"
}

# Public keys of the interface that was named first.
_wgd_peers() {
  local -a found
  mapfile -t found < <("$wgd" show "$first" peers 2>/dev/null)
  _wgd_offer "\${found[@]}"
}

# Files whose names end like $1, and directories.
_wgd_files() {
  local word
  compopt -o filenames 2>/dev/null
  while IFS= read -r word; do
    [[ -d $word || $word == *"$1" ]] && COMPREPLY+=("$word")
  done < <(compgen -f -- "$cur")
}

_wgd_configs() {
  local word
  for word in ${CONFIG_DIRECTORY}/*.conf; do
    [[ -e $word ]] || continue
    word=\${word##*/}
    _wgd_offer "\${word%.conf}"
  done
  _wgd_files .conf
}

_wgd() {
  local IFS=$' \\t\\n' wgd=$1 cur=\${COMP_WORDS[COMP_CWORD]}
  local command='' first='' before='' option='' plain='' word
  local -i place=0 i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    if [[ -n $option ]]; then
      [[ $word == '=' ]] || option=''
      continue
    fi
    [[ $word == '=' ]] && continue # the end of a key
    if [[ -z $plain ]]; then
      case "$command $word" in
        *' --')
          plain=1
          continue
          ;;
        ${valuePattern()})
          option=$word
          continue
          ;;
        *' -'?*)
          continue
          ;;
      esac
    fi
    before=$word
    case $((place++)) in
      0) command=$word ;;
      1) first=$word ;;
    esac
    if ((place > 1)); then
      case "$command" in
        ${verbatimNames().join(" | ")}) plain=1 ;;
      esac
    fi
  done
  if [[ -n $option ]]; then
    [[ $cur == '=' ]] && cur=''
${indent(valueCase(), 4)}
  elif [[ -z $plain && $cur == -* ]]; then
${indent(optionCase(), 4)}
  else
${indent(wordCase(), 4)}
  fi
}

complete -F _wgd wgd
`;
}
