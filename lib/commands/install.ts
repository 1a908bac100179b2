/**
 * `wgd install`: this executable, what its service manager needs, the manual
 * page and completions. What is written is listed in a manifest first, so that
 * an installation that was interrupted can be removed, too.
 *
 * @module
 */
import { VERSION } from "../version.ts";
import type { CommandContext } from "./context.ts";
import { CliError, EXIT } from "./errors.ts";
import {
  detectSystem,
  exists,
  filesFor,
  hashOf,
  hashText,
  type Installed,
  type InstallFile,
  type Manifest,
  manifestPath,
  type Place,
  placeOf,
  readManifest,
  type System,
} from "./install_files.ts";

/** Set by the form of wgd that extracts itself: its own path. */
const LAUNCHER = "WGD_LAUNCHER";

/** What to do next, by service manager. */
const NEXT: Readonly<Record<System, string>> = {
  systemd: "systemctl enable --now wgd@wg0  # for /etc/wireguard/wg0.conf",
  openrc: "ln -s wgd /etc/init.d/wgd.wg0 && rc-update add wgd.wg0 default",
  openwrt:
    "option proto 'wgd' in /etc/config/network, or /etc/config/wgd and " +
    "/etc/init.d/wgd enable",
  none: "wgd up wg0  # no service manager was found that wgd knows",
};

/** Runs `wgd install`. */
export async function runCommand(ctx: CommandContext): Promise<number> {
  const { prefix, root } = placeOf(ctx);
  const { system } = ctx.options;
  const place: Place = {
    prefix,
    root,
    system: typeof system === "string" ? system as System : detectSystem(root),
  };
  await install(place, ownProgram(ctx), ctx);
  if (root === "" && place.system === "systemd") await reloadSystemd(ctx);
  ctx.out(`next: ${NEXT[place.system]}\n`);
  return EXIT.OK;
}

/** Path of the one file that this program is. */
function ownProgram(ctx: CommandContext): string {
  if (Deno.build.standalone) return Deno.execPath();
  const launcher = ctx.env(LAUNCHER);
  if (launcher) return launcher;
  throw new CliError(
    "this is a checkout, not an executable: run deno task compile, then " +
      "dist/wgd-… install",
  );
}

/** Installs `program` and all that goes with it. @throws CliError */
export async function install(
  place: Place,
  program: string,
  ctx: CommandContext,
): Promise<void> {
  const { root, prefix, system } = place;
  const before = readManifest(place);
  const ours = new Map(before?.files.map((file) => [file.path, file]));
  const files = await filesFor(place, ctx);
  const foreign = files.filter(({ path, config }) =>
    !config && !ours.has(path) && exists(root + path)
  );
  if (foreign.length > 0) {
    const paths = foreign.map(({ path }) => root + path).join(", ");
    throw new CliError(
      `${paths}: not of an earlier wgd install; remove it, or choose another ` +
        "--prefix",
    );
  }
  const kept = files.filter(({ path, config }) => {
    if (!config) return false;
    const now = hashOf(root + path);
    return now !== undefined && now !== ours.get(path)?.sha256;
  });
  const fresh = files.filter((file) => !kept.includes(file));
  const listed: Installed[] = fresh.map((file) => ({
    path: file.path,
    sha256: file.text === undefined
      ? hashOf(program) ?? ""
      : hashText(file.text),
    config: file.config === true,
  }));
  // What an earlier version has installed and this one does not.
  const stale = [...ours.values()].filter(({ path }) =>
    !files.some((file) => file.path === path)
  );
  const directories = new Set(before?.directories);
  const parents = [manifestPath(prefix), ...fresh.map(({ path }) => path)];
  for (const path of parents) makeParents(root, path, directories);
  writeManifest(place, {
    version: VERSION,
    system,
    files: [...listed, ...stale],
    directories: [...directories],
  });
  for (const file of fresh) {
    write(root, file, program);
    ctx.out(`installed ${root}${file.path}\n`);
  }
  for (const { path } of kept) ctx.out(`kept ${root}${path}, as changed\n`);
}

/** Makes the directories that a path needs, and notes which were made. */
function makeParents(
  root: string,
  path: string,
  made: Set<string>,
): void {
  const names = path.split("/").slice(1, -1);
  let directory = "";
  for (const name of names) {
    directory += `/${name}`;
    if (isDirectory(root + directory)) continue;
    Deno.mkdirSync(root + directory, { recursive: true, mode: 0o755 });
    Deno.chmodSync(root + directory, 0o755);
    made.add(directory);
  }
}

/** Also by a link, as /lib is one. */
function isDirectory(path: string): boolean {
  try {
    return Deno.statSync(path).isDirectory;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Puts a file in its place at once: a running program keeps its old one. */
function write(root: string, file: InstallFile, program: string): void {
  const path = root + file.path;
  const early = `${path}.wgd-new`;
  try {
    if (file.text === undefined) Deno.copyFileSync(program, early);
    else Deno.writeTextFileSync(early, file.text);
    Deno.chmodSync(early, file.mode);
    Deno.renameSync(early, path);
  } catch (error) {
    if (exists(early)) Deno.removeSync(early);
    throw error;
  }
}

function writeManifest(place: Place, manifest: Manifest): void {
  const text = `${JSON.stringify(manifest, null, 2)}\n`;
  const path = manifestPath(place.prefix);
  write(place.root, { path, mode: 0o644, text }, "");
}

async function reloadSystemd(ctx: CommandContext): Promise<void> {
  ctx.err("[#] systemctl daemon-reload");
  const { success } = await new Deno.Command("systemctl", {
    args: ["daemon-reload"],
    stdin: "null",
    stdout: "null",
    stderr: "inherit",
  }).output();
  if (!success) throw new CliError("systemctl daemon-reload failed");
}
