/**
 * Which files `wgd install` writes for each service manager, and where; and the
 * manifest by which `wgd uninstall` finds them again.
 *
 * @module
 */
import { createHash } from "node:crypto";
import type { CommandContext } from "./context.ts";
import { CliError } from "./errors.ts";
import { findCommand } from "./table.ts";

/** Service managers that wgd can be put under. */
export const SYSTEMS = ["systemd", "openrc", "openwrt", "none"] as const;
/** One of them. */
export type System = typeof SYSTEMS[number];

/** Where things go. */
export interface Place {
  readonly system: System;
  /** As `/usr/local`. */
  readonly prefix: string;
  /** Stands before every path; empty for this machine. */
  readonly root: string;
}

/** A file to install. */
export interface InstallFile {
  /** Its path, without the root. */
  readonly path: string;
  readonly mode: number;
  /** What it holds; the program itself is copied. */
  readonly text?: string;
  /** The administrator's to change: kept once it is changed. */
  readonly config?: boolean;
}

/** A file as the manifest knows it. */
export interface Installed {
  readonly path: string;
  readonly sha256: string;
  readonly config: boolean;
}

/** What an installation has written. */
export interface Manifest {
  readonly version: string;
  readonly system: System;
  readonly files: readonly Installed[];
  /** Directories that were made, each before those in it. */
  readonly directories: readonly string[];
}

const PACKAGING = new URL("../../packaging/", import.meta.url);
const PROGRAM = 0o755;
const DATA = 0o644;
const HASH_CHUNK = 1 << 20;

/** What is at hand here, as far as directories tell. */
export function detectSystem(root: string): System {
  const has = (path: string): boolean => exists(`${root}${path}`);
  if (has("/etc/openwrt_release")) return "openwrt";
  if (root === "" ? has("/run/systemd/system") : hasSystemd(has)) {
    return "systemd";
  }
  return has("/sbin/openrc-run") || has("/usr/sbin/openrc-run")
    ? "openrc"
    : "none";
}

function hasSystemd(has: (path: string) => boolean): boolean {
  return has("/lib/systemd/systemd") || has("/usr/lib/systemd/systemd");
}

/** Where the manifest is, without the root. */
export function manifestPath(prefix: string): string {
  return `${prefix}/lib/wgd/manifest.json`;
}

/** Where the program goes, without the root. */
export function programPath(prefix: string): string {
  return `${prefix}/bin/wgd`;
}

/** All files for a place; the program is the first. */
export async function filesFor(
  place: Place,
  ctx: CommandContext,
): Promise<InstallFile[]> {
  const { prefix } = place;
  return [
    { path: programPath(prefix), mode: PROGRAM },
    ...serviceFiles(place),
    ...await documents(prefix, ctx),
  ];
}

function serviceFiles({ system, prefix }: Place): InstallFile[] {
  const file = (name: string, path: string, mode: number): InstallFile => ({
    path,
    mode,
    text: packaged(name, prefix),
  });
  const config = (name: string, path: string): InstallFile => ({
    ...file(name, path, DATA),
    config: true,
  });
  switch (system) {
    case "systemd":
      return [
        file(
          "systemd/wgd@.service",
          `${prefix}/lib/systemd/system/wgd@.service`,
          DATA,
        ),
        config("default", "/etc/default/wgd"),
      ];
    case "openrc":
      return [
        file("openrc/wgd", "/etc/init.d/wgd", PROGRAM),
        config("default", "/etc/conf.d/wgd"),
      ];
    case "openwrt":
      return [
        file("hold", `${prefix}/libexec/wgd-hold`, PROGRAM),
        file("openwrt/wgd.init", "/etc/init.d/wgd", PROGRAM),
        file("openwrt/wgd.proto", "/lib/netifd/proto/wgd.sh", PROGRAM),
        config("openwrt/wgd.config", "/etc/config/wgd"),
      ];
    case "none":
      return [];
  }
}

/** A file of packaging/, with the paths of this installation. */
function packaged(name: string, prefix: string): string {
  return Deno.readTextFileSync(new URL(name, PACKAGING))
    .replaceAll("/usr/bin/wgd", programPath(prefix))
    .replaceAll("/usr/libexec/wgd-hold", `${prefix}/libexec/wgd-hold`);
}

/** The manual page and completions, as far as there are commands for them. */
async function documents(
  prefix: string,
  ctx: CommandContext,
): Promise<InstallFile[]> {
  const share = `${prefix}/share`;
  const wanted: readonly (readonly [string, ...string[]])[] = [
    [`${share}/man/man8/wgd.8`, "man"],
    [`${share}/bash-completion/completions/wgd`, "completions", "bash"],
    [`${share}/zsh/site-functions/_wgd`, "completions", "zsh"],
    [`${share}/fish/vendor_completions.d/wgd.fish`, "completions", "fish"],
  ];
  const files: InstallFile[] = [];
  for (const [path, name, ...args] of wanted) {
    const command = findCommand(name);
    if (command === undefined) continue;
    let text = "";
    const out = (more: string): void => void (text += more);
    const status = await command.run({ ...ctx, args, options: {}, out });
    if (status !== 0) throw new CliError(`wgd ${name} failed`);
    files.push({ path, mode: DATA, text });
  }
  return files;
}

/** Whether there is anything at `path`. */
export function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    if (error instanceof Deno.errors.NotADirectory) return false;
    throw error;
  }
}

/** SHA-256 of a text. */
export function hashText(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

/** SHA-256 of a file; undefined where there is none. */
export function hashOf(path: string): string | undefined {
  let file: Deno.FsFile;
  try {
    file = Deno.openSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
  try {
    const hash = createHash("sha256");
    const chunk = new Uint8Array(HASH_CHUNK);
    for (let n = 0; (n = file.readSync(chunk) ?? 0) > 0;) {
      hash.update(chunk.subarray(0, n));
    }
    return hash.digest("hex");
  } finally {
    file.close();
  }
}

/** The manifest of an installation; undefined where there is none. */
export function readManifest(
  { root, prefix }: Pick<Place, "root" | "prefix">,
): Manifest | undefined {
  const path = root + manifestPath(prefix);
  let text: string;
  try {
    text = Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
  try {
    const manifest = JSON.parse(text) as Manifest;
    if (manifest.files.every(({ path }) => path.startsWith("/"))) {
      return manifest;
    }
  } catch (error) {
    throw new CliError(`${path} is not a manifest of wgd`, 1, { cause: error });
  }
  throw new CliError(`${path} is not a manifest of wgd`);
}

/** Checks the options that `install` and `uninstall` have in common. */
export function placeOf(
  { options }: CommandContext,
): Pick<Place, "prefix" | "root"> {
  const path = (name: string, fallback: string): string => {
    const given = options[name];
    if (given === undefined) return fallback;
    const text = String(given).replace(/\/+$/, "");
    if (/^\/[\w./+-]*$/.test(text) || (name === "root" && text === "")) {
      return text;
    }
    throw new CliError(
      `--${name} ${JSON.stringify(given)}: expected an absolute path of ` +
        "letters, digits and ./_+-",
      2,
    );
  };
  return { prefix: path("prefix", "/usr/local"), root: path("root", "") };
}
