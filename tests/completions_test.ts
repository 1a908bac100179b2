/**
 * The completion scripts, sourced in the shells that they are for: what is
 * offered is what the table has.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { COMMANDS, GLOBAL_OPTIONS, SHELLS } from "../lib/commands/table.ts";
import { COMPLETIONS } from "../lib/commands/completions.ts";
import { main } from "../lib/commands/main.ts";
import {
  FakeDevice,
  FakeServer,
  uniqueName,
  whyNoStockWg,
  WIREGUARD_DIRECTORY,
} from "./uapi_fake.ts";
import type { Command } from "../lib/commands/table.ts";

const KEY = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const CLI = new URL("../cli.ts", import.meta.url).pathname;
/** What `wgd` prints in the shells under test. */
const STUB = `case "$*" in
  "show interfaces") echo "wg0 office" ;;
  "show wg0 peers") echo "${KEY}" ;;
  *) exit 9 ;;
esac
`;

function whyNot(shell: string): string | null {
  try {
    const { success } = new Deno.Command(shell, {
      args: ["-c", "exit 0"],
      stdout: "null",
      stderr: "null",
    }).outputSync();
    return success ? null : `${shell} does not run`;
  } catch {
    return `needs ${shell} (apt-get install ${shell})`;
  }
}

/** A directory with the script, a program `wgd` and some files. */
class Place implements Disposable {
  readonly path = Deno.makeTempDirSync();

  constructor(shell: typeof SHELLS[number], program = STUB) {
    this.#write("script", COMPLETIONS[shell]());
    this.#write("wgd", `#!/bin/sh\n${program}`, 0o755);
    Deno.mkdirSync(`${this.path}/files/folder`, { recursive: true });
    for (const name of ["wg9.conf", "my key", "other.txt"]) {
      this.#write(`files/${name}`, "");
    }
  }

  #write(name: string, text: string, mode = 0o644): void {
    Deno.writeTextFileSync(`${this.path}/${name}`, text, { mode });
  }

  /** Runs a program in the files' directory, with our `wgd` in its path. */
  run(command: string, args: string[]): string {
    const { success, stdout, stderr } = new Deno.Command(command, {
      args,
      cwd: `${this.path}/files`,
      env: {
        PATH: `${this.path}:${Deno.env.get("PATH")}`,
        HOME: this.path,
        SCRIPT: `${this.path}/script`,
      },
      stdout: "piped",
      stderr: "piped",
    }).outputSync();
    const error = new TextDecoder().decode(stderr);
    assert(success && error === "", `${args}: ${error}`);
    return new TextDecoder().decode(stdout);
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.path, { recursive: true });
  }
}

/**
 * What is offered for the last of the words. In bash, `--udp=x` is three words,
 * as its readline makes of it.
 */
type Offer = (...words: string[]) => string[];

const offers: Record<typeof SHELLS[number], (place: Place) => Offer> = {
  bash: (place) => (...words) =>
    place.run("bash", [
      "--norc",
      "-c",
      'source "$SCRIPT"; COMP_WORDS=(wgd "$@"); COMP_CWORD=$#; ' +
      '_wgd wgd; printf "%s\\n" "${COMPREPLY[@]}"',
      "bash",
      ...words.flatMap((word) => {
        const equals = word.startsWith("--") ? word.indexOf("=") : -1;
        if (equals < 0) return [word];
        const value = word.slice(equals + 1);
        return [word.slice(0, equals), "=", ...(value ? [value] : [])];
      }),
    ]).split("\n").filter((line) => line !== ""),
  // Stands in for zsh's own functions, which work in a line editor only.
  zsh: (place) => (...words) =>
    place.run("zsh", [
      "-f",
      "-c",
      `compdef() { }
      compadd() { shift; local w; for w in "$@"; do
        [[ $w == "$PREFIX"* ]] && print -r -- $w; done; return 0 }
      _describe() { local w; for w in \${(P)2}; do
        [[ $w == "$PREFIX"* ]] && print -r -- \${w%%:*}; done; return 0 }
      _files() { local w; for w in *(N); do
        [[ $w == "$PREFIX"* && ( -d $w || $w == \${~2:-*} ) ]] &&
        print -r -- $w; done; return 0 }
      compset() { PREFIX=\${PREFIX#*=} }
      source "$SCRIPT"
      words=(wgd "$@") CURRENT=$(($# + 1)) PREFIX=\${@[-1]}
      _wgd`,
      "zsh",
      ...words,
    ]).split("\n").filter((line) => line !== ""),
  fish: (place) => (...words) =>
    place.run("fish", [
      "--no-config",
      "-c",
      'source "$SCRIPT"; complete -C "$argv"',
      ["wgd", ...words].join(" "),
    ]).split("\n").map((line) => line.split("\t")[0])
      .map((line) => line.replace(/^--\w+=(?=.)/, "")) // fish repeats it
      .filter((line) => line !== ""),
};

function check(offer: Offer, files: (names: string[]) => string[]): void {
  const sorted = (words: string[]): string[] => [...words].sort();
  const long = (command?: Command): string[] =>
    (command ? [...command.options, { name: "help" }] : GLOBAL_OPTIONS)
      .map(({ name }) => `--${name}`);

  assertEquals(
    sorted(offer("")),
    sorted(COMMANDS.map(({ name }) => name)),
  );
  assertEquals(offer("self"), ["selftest"]);
  assertEquals(offer("--ver"), ["--version"]);
  assertEquals(sorted(offer("--")), sorted(long()));
  for (const command of COMMANDS) {
    assertEquals(sorted(offer(command.name, "--")), sorted(long(command)));
    for (const { name, choices } of command.options) {
      if (!choices) continue;
      const expected = sorted([...choices]);
      assertEquals(sorted(offer(command.name, `--${name}`, "")), expected);
      assertEquals(sorted(offer(command.name, `--${name}=`)), expected);
      assertEquals(offer(command.name, `--${name}=${choices[0]}`), [
        choices[0],
      ]);
    }
    for (const [i, { choices, repeats }] of (command.words ?? []).entries()) {
      if (!choices) continue;
      const before = Array.from({ length: i }, () => "wg0");
      for (const choice of choices) {
        assert(offer(command.name, ...before, choice).includes(choice));
        if (repeats) {
          assert(offer(command.name, ...before, "x", choice).includes(choice));
        }
      }
    }
  }

  assertEquals(sorted(offer("show", "")), [
    ...["all", "interfaces", "office", "wg0"],
  ]);
  assertEquals(offer("show", "o"), ["office"]);
  assertEquals(offer("show", "--json", "o"), ["office"]);
  assertEquals(offer("show", "wg0", "tr"), ["transfer"]);
  assertEquals(offer("show", "wg0", "transfer", ""), []);
  assertEquals(offer("help", "sel"), ["selftest"]);
  assertEquals(offer("completions", "f"), ["fish"]);
  assertEquals(offer("genkey", ""), []);

  assertEquals(offer("up", "wg9"), files(["wg9.conf"]));
  assertEquals(offer("up", "fol"), files(["folder"]));
  assertEquals(offer("up", "oth"), []);
  assertEquals(offer("up", "--threads", "1", "wg9"), files(["wg9.conf"]));
  assertEquals(offer("setconf", "wg0", "oth"), files(["other.txt"]));

  assertEquals(offer("set", "wg0", "list"), ["listen-port"]);
  assertEquals(offer("set", "wg0", "listen-port", ""), []);
  assertEquals(offer("set", "wg0", "private-key", "oth"), files(["other.txt"]));
  assertEquals(offer("set", "wg0", "peer", ""), [KEY]);
  assertEquals(offer("set", "wg0", "peer", "xTI"), [KEY]);
  assertEquals(offer("set", "wg0", "peer", KEY, "end"), ["endpoint"]);
  assertEquals(offer("set", "wg0", "peer", KEY, "allowed-ips", "-::/0", "r"), [
    "remove",
  ]);
  assertEquals(offer("set", "wg0", "--"), []);
}

for (const shell of SHELLS) {
  const why = whyNot(shell);
  Deno.test({
    name: `in ${shell}, commands, options, interfaces, peers and files are ` +
      `completed${why ? ` (skipped: ${why})` : ""}`,
    ignore: why !== null,
    fn(): void {
      using place = new Place(shell);
      place.run(shell, ["-n", `${place.path}/script`]);
      const isFish = shell === "fish";
      check(
        offers[shell](place),
        (names) =>
          names.map((name) => isFish && name === "folder" ? "folder/" : name),
      );
    },
  });
}

Deno.test("in bash, names of files with spaces stay whole", () => {
  using place = new Place("bash");
  const offer = offers.bash(place);
  assertEquals(offer("set", "wg0", "private-key", "my"), ["my key"]);
  assertEquals(offer("set", "wg0", "endpoint", "1.2.3.4", ":", "5", "li"), [
    "listen-port",
  ]);
});

/** Prints what each of the words becomes in zsh's line editor by a Tab. */
const IN_TERMINAL = `zmodload zsh/zpty
zpty shell "zsh -f -i"
zpty -w shell 'autoload -Uz compinit; compinit -D -u; source "$SCRIPT"
tell() { print -r -- "<$BUFFER>"; BUFFER= }; zle -N tell; bindkey "^X" tell'
for line in "$@"; do
  zpty -w -n shell $line$'\t\x18'
  zpty -r shell text '*<wgd*>*'
  print -r -- \${\${text##*<}%%>*}
done
zpty -d shell`;

const whyNoZsh = whyNot("zsh");
Deno.test({
  name: `in a terminal, zsh completes words that are begun${
    whyNoZsh ? ` (skipped: ${whyNoZsh})` : ""
  }`,
  ignore: whyNoZsh !== null,
  fn(): void {
    using place = new Place("zsh");
    const words = {
      "wgd showc": "wgd showconf ",
      "wgd help comp": "wgd help completions ",
      "wgd show off": "wgd show office ",
      "wgd show wg0 end": "wgd show wg0 endpoints ",
      "wgd set wg0 peer xT": `wgd set wg0 peer ${KEY} `,
      "wgd up --dry": "wgd up --dry-run ",
      "wgd up --udp=p": "wgd up --udp=plain ",
      "wgd up wg9": "wgd up wg9.conf ",
    };
    const lines = Object.keys(words);
    const shown = place.run("timeout", [
      ...["60", "zsh", "-f", "-c", IN_TERMINAL, "zsh"],
      ...lines,
    ]);
    const wanted = Object.values(words).map((line) => `${line}\n`);
    assertEquals(shown, wanted.join(""));
  },
});

const why = whyNoStockWg();
Deno.test({
  name: `in bash, interfaces and peers are those that run${
    why ? ` (skipped: ${why})` : ""
  }`,
  ignore: why !== null,
  async fn(): Promise<void> {
    const name = uniqueName("wgdt");
    const device = new FakeDevice();
    device.add(new Uint8Array(32).fill(0x41));
    await using _server = FakeServer.of(
      `${WIREGUARD_DIRECTORY}/${name}.sock`,
      device,
    );
    using place = new Place(
      "bash",
      `exec ${Deno.execPath()} run -A ${CLI} "$@"`,
    );
    const { stdout } = await new Deno.Command("bash", {
      args: [
        "--norc",
        "-c",
        'source "$SCRIPT"; for words in "$@"; do ' +
        "COMP_WORDS=($words); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); " +
        '_wgd wgd; echo "${COMPREPLY[@]}"; done',
        "bash",
        `wgd show ${name.slice(0, -1)}`,
        `wgd set ${name} peer QUF`,
      ],
      env: {
        PATH: `${place.path}:${Deno.env.get("PATH")}`,
        SCRIPT: `${place.path}/script`,
      },
      stdout: "piped",
    }).output();
    const key = new Uint8Array(32).fill(0x41).toBase64();
    assertEquals(new TextDecoder().decode(stdout), `${name}\n${key}\n`);
  },
});

Deno.test("completions of a shell that there is not are wrong usage", async () => {
  const outcome = { out: "", err: "" };
  const code = await main(["completions", "bsh"], {
    out: (text) => void (outcome.out += text),
    err: (line) => void (outcome.err += line),
    readStdin: () => Promise.resolve(new Uint8Array()),
    env: () => undefined,
    isTerminal: false,
  });
  assertEquals([code, outcome.out], [2, ""]);
  assertStringIncludes(outcome.err, "did you mean bash?");
});
