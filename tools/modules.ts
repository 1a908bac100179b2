/**
 * How a module of the checkout is started as a program of its own: by this Deno;
 * or, by the file of `deno task compile --suite`, which carries its modules and
 * runs where there is no Deno, by that file itself.
 *
 * @module
 */
import { fileURLToPath } from "node:url";

/** First argument of the suite's file, before a module's path and arguments. */
export const MODULE = "module";

const ROOT = new URL("../", import.meta.url);

/** Command line that runs a module; its path is from the checkout's root. */
export function moduleCommand(
  path: string,
  args: readonly string[],
): string[] {
  if (Deno.build.standalone) return [Deno.execPath(), MODULE, path, ...args];
  const [config, module] = ["deno.json", path].map((each) =>
    fileURLToPath(new URL(each, ROOT))
  );
  const options = ["run", "--quiet", "--allow-all", "--config", config];
  return [Deno.execPath(), ...options, module, ...args];
}
