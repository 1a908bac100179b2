/**
 * The end of the network namespaces that a device stands in (kernel:
 * `wg_netns_pre_exit`). The kernel's driver holds no reference to the namespace
 * that it was created in, and hears of its death; a process holds what it is in,
 * so it has to look: a namespace that had a name with iproute2 counts as gone
 * once it has none any more and no other process is in it. Namespaces without a
 * name, as containers have, end with the processes in them.
 *
 * @module
 */
import {
  isNamed,
  isShared,
  NETNS_DIRECTORY,
  type NetnsId,
} from "./sys/netns.ts";

/** How often a namespace that lost its name is looked at while others use it. */
const LOOK_MS = 1_000;

/** What is watched, and who is told. */
export interface NetnsWatchOptions {
  /** Namespace of the sockets, which is this thread's. */
  readonly home: NetnsId;
  /** Where the interface is now. */
  readonly interfaceNetns: () => NetnsId;
  /** Called once when the sockets' namespace is gone. */
  readonly abandoned: () => Promise<void>;
  /** Called once when nobody can get at the interface any more, either. */
  readonly unreachable: () => void;
  readonly report: (error: Error) => void;
}

/** A running watch. */
export interface NetnsWatch {
  /** Called when the interface has moved. */
  look(): void;
  close(): void;
}

/** Starts to watch, if there is anything to watch. */
export function watchNetns(options: NetnsWatchOptions): NetnsWatch {
  const { home } = options;
  if (!isNamed(home)) return { look(): void {}, close(): void {} };
  const changes = Deno.watchFs(NETNS_DIRECTORY, { recursive: false });
  let timer: ReturnType<typeof setTimeout> | undefined;
  let closed = false;
  let gone = false;
  /** Where the interface was seen while that place had a name. */
  let namedPlace: NetnsId | undefined;
  const look = async (): Promise<void> => {
    clearTimeout(timer);
    const place = options.interfaceNetns();
    const placeNamed = isNamed(place);
    if (placeNamed) namedPlace = place;
    if (!gone && !isNamed(home)) {
      if (isShared()) {
        timer = setTimeout(again, LOOK_MS);
        return;
      }
      gone = true;
      await options.abandoned();
    }
    if (gone && !placeNamed && namedPlace === place) options.unreachable();
  };
  const again = (): void => {
    if (closed) return;
    look().catch(options.report);
  };
  (async (): Promise<void> => {
    again();
    for await (const _ of changes) again();
  })().catch(options.report);
  return {
    look: again,
    close(): void {
      closed = true;
      clearTimeout(timer);
      changes.close();
    },
  };
}
