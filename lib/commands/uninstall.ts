/**
 * `wgd uninstall`: removes what `wgd install` has written, by its manifest: not
 * what was changed since, and no directory that holds anything else.
 *
 * @module
 */
import type { CommandContext } from "./context.ts";
import { CliError, EXIT } from "./errors.ts";
import {
  hashOf,
  manifestPath,
  type Place,
  placeOf,
  readManifest,
} from "./install_files.ts";

/** Runs `wgd uninstall`. */
export function runCommand(ctx: CommandContext): Promise<number> {
  const place = placeOf(ctx);
  uninstall(place, ctx);
  return Promise.resolve(EXIT.OK);
}

/** Removes the installation in a place. @throws CliError where there is none */
export function uninstall(
  place: Pick<Place, "prefix" | "root">,
  ctx: CommandContext,
): void {
  const { root, prefix } = place;
  const manifest = readManifest(place);
  if (manifest === undefined) {
    throw new CliError(
      `there is no ${root}${manifestPath(prefix)}: nothing was installed ` +
        "there by wgd install; see --prefix",
    );
  }
  for (const { path, sha256 } of manifest.files) {
    const now = hashOf(root + path);
    if (now === undefined) continue;
    if (now !== sha256) {
      ctx.out(`kept ${root}${path}, as changed\n`);
      continue;
    }
    Deno.removeSync(root + path);
    ctx.out(`removed ${root}${path}\n`);
  }
  Deno.removeSync(root + manifestPath(prefix));
  for (const directory of [...manifest.directories].reverse()) {
    removeIfEmpty(root + directory);
  }
}

function removeIfEmpty(directory: string): void {
  try {
    if (Deno.readDirSync(directory)[Symbol.iterator]().next().done) {
      Deno.removeSync(directory);
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
