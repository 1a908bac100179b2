/**
 * Which configuration file, and which interface, an argument of the commands of
 * wg-quick(8) means.
 *
 * @module
 */
import { interfaceNameOf, isInterfaceName } from "../config.ts";
import { CliError, EXIT } from "./errors.ts";

const CONFIG_DIRECTORY = "/etc/wireguard";

/** A configuration file by path or by the name of its interface. */
export interface ConfigFile {
  readonly path: string;
  readonly name: string;
}

/** The file that an argument of `up` and the like means. */
export function configFileOf(argument: string): ConfigFile {
  if (isInterfaceName(argument) && !argument.endsWith(".conf")) {
    return { path: `${CONFIG_DIRECTORY}/${argument}.conf`, name: argument };
  }
  const name = interfaceNameOf(argument);
  if (name === null) {
    throw new CliError(
      `${JSON.stringify(argument)} is no configuration; expected the name of ` +
        "an interface, or a file named after one as in ./wg0.conf",
      EXIT.USAGE,
    );
  }
  return { path: realPath(argument), name };
}

/** Absolute, so that it is the same file from everywhere. */
function realPath(path: string): string {
  try {
    return Deno.realPathSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return path;
    throw error;
  }
}
