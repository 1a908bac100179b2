/**
 * The completion script for zsh: a file `_wgd` in the path of functions, or
 * sourced.
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

/** The text of `wgd completions zsh`. */
export function zshCompletions(): string {
  const commands = COMMANDS.map(({ name, summary }) =>
    shellQuote(`${name}:${summary.replaceAll(":", "\\:")}`)
  );
  return `#compdef wgd
# Completion of wgd ${VERSION} for zsh; made by: wgd completions zsh

_wgd_offer() {
  compadd -- "$@"
}

_wgd_commands() {
  local -a found=(
${indent(commands, 4)}
  )
  _describe command found
}

_wgd_interfaces() {
  local -a found=(\${=$("$wgd" show interfaces 2>/dev/null)})
  compadd -- $found
}

# Public keys of the interface that was named first.
_wgd_peers() {
  local -a found=(\${(f)"$("$wgd" show "$first" peers 2>/dev/null)"})
  compadd -- $found
}

_wgd_files() {
  _files
}

_wgd_configs() {
  local -a found=(${CONFIG_DIRECTORY}/*.conf(N:t:r))
  compadd -- $found
  _files -g '*.conf'
}

_wgd() {
  local wgd=$words[1] command='' first='' before='' option='' plain='' word
  local -i place=0 i
  for ((i = 2; i < CURRENT; i++)); do
    word=$words[i]
    if [[ -n $option ]]; then
      option=''
      continue
    fi
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
  if [[ -z $option && -z $plain && $PREFIX == --*=* ]]; then
    option=\${PREFIX%%=*}
    compset -P '*='
  fi
  if [[ -n $option ]]; then
${indent(valueCase(), 4)}
  elif [[ -z $plain && $PREFIX == -* ]]; then
${indent(optionCase(), 4)}
  else
${indent(wordCase(), 4)}
  fi
}

if [[ $funcstack[1] == _wgd ]]; then
  _wgd "$@"
else
  compdef _wgd wgd
fi
`;
}
