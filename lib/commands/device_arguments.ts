/**
 * Options of an interface as arguments again, for the daemon.
 *
 * @module
 */
import type { OptionValues } from "./context.ts";

const DEVICE_OPTION_NAMES = [
  ...["threads", "lanes", "queues", "crypto", "udp", "offload"],
  ...["memory", "netns", "socket-netns"],
];

/** Those of `run`. */
export function deviceArguments(options: OptionValues): string[] {
  return DEVICE_OPTION_NAMES.flatMap((name) =>
    typeof options[name] === "string" ? [`--${name}`, options[name]] : []
  );
}
