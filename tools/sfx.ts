/**
 * The form `script` of tools/compile.ts: tools/sfx.sh as the header, then the
 * stock deno binary and the bundle as a tar archive packed with xz.
 *
 * @module
 */
import { fileURLToPath } from "node:url";
import { PERMISSIONS, UNSTABLE, V8_FLAGS } from "./permissions.ts";

const HEADER = fileURLToPath(new URL("sfx.sh", import.meta.url));
const MODE = 0o755;
const ID_DIGITS = 16;
/** As many digits as the two lengths in the header have, whatever they are. */
const LENGTH_DIGITS = 10;

/** What a script is made from. */
export interface ScriptParts {
  /** Directory of the bundle. */
  readonly bundle: string;
  /** The deno that it carries. */
  readonly deno: string;
  readonly output: string;
}

/** Runs a line of shell. @throws Error */
function shell(line: string, ...args: string[]): Uint8Array {
  const { success, stdout } = new Deno.Command("sh", {
    args: ["-ceu", line, "sh", ...args],
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).outputSync();
  if (!success) throw new Error(`failed: ${line}`);
  return stdout;
}

/**
 * The archive: nothing in it tells when, where or by whom it was made. Harder
 * packing would save 4 % and take 64 MB to unpack, not 9.
 */
function pack({ bundle, deno }: ScriptParts): Uint8Array {
  const tree = Deno.makeTempDirSync({ prefix: "wgd-sfx-" });
  try {
    shell('cp -R "$1/." "$3"; cp "$2" "$3/deno"', bundle, deno, tree);
    shell('chmod -R u=rwX,go= "$1"; chmod 700 "$1/deno"', tree);
    return shell(
      'tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner \
        --format=ustar -C "$1" -cf - . | xz -6 --threads=1',
      tree,
    );
  } finally {
    Deno.removeSync(tree, { recursive: true });
  }
}

/** Writes the script. */
export async function writeScript(parts: ScriptParts): Promise<void> {
  const archive = pack(parts);
  const digest = await crypto.subtle.digest(
    "SHA-256",
    archive as Uint8Array<ArrayBuffer>,
  );
  const fill = (skip: number): Uint8Array =>
    new TextEncoder().encode(
      Deno.readTextFileSync(HEADER)
        .replace("@TARGET@", "Linux with glibc")
        .replace("@ID@", new Uint8Array(digest).toHex().slice(0, ID_DIGITS))
        .replace("@SKIP@", String(skip).padEnd(LENGTH_DIGITS))
        .replace("@SIZE@", String(archive.length).padEnd(LENGTH_DIGITS))
        .replace(
          "@OPTIONS@",
          [...UNSTABLE, V8_FLAGS, ...PERMISSIONS].map(quote).join(" "),
        ),
    );
  const header = fill(fill(0).length);
  Deno.writeFileSync(parts.output, header, { mode: MODE });
  Deno.writeFileSync(parts.output, archive, { append: true });
  Deno.chmodSync(parts.output, MODE);
}

/** A word for the shell. */
function quote(word: string): string {
  return /^[\w\-=,]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
