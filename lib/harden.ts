/**
 * The daemon's memory and rights: done by `wgd run`, not to programs that embed
 * a device.
 *
 * @module
 */
import type { Arena } from "./arena.ts";
import {
  CAPABILITY,
  dropCapabilities,
  forbidDumps,
  leaveOutOfDumps,
  limitChildren,
  lock,
  type Missing,
} from "./sys/harden.ts";
import { ArenaMemory } from "./sys/memory.ts";

/** Before there are keys, threads or packets. @returns what cannot be done here */
export function hardenProcess(): Missing {
  return forbidDumps();
}

/**
 * Before this process starts the daemon and ends: all threads of that, those of
 * the runtime too, have at most the rights that a start takes.
 *
 * @param otherNetns whether namespaces are to be entered
 */
export function limitDaemon(otherNetns: boolean): Missing {
  const { SYS_ADMIN, ...others } = CAPABILITY;
  return limitChildren([
    ...Object.values(others),
    ...otherNetns ? [SYS_ADMIN] : [],
  ]);
}

/** The arena out of dumps, and what of it holds keys out of swap space. */
export function hardenArena(arena: Arena): Missing {
  const memory = new ArenaMemory(arena);
  const { layout } = arena;
  return [
    ...leaveOutOfDumps(memory.range(0, layout.words * 4)),
    // Sessions, keypairs and peers lie next to each other.
    ...lock(
      memory.range(
        layout.sessions * 4,
        (layout.trieNodes - layout.sessions) * 4,
      ),
    ),
  ];
}

/**
 * For control's thread, once sockets and threads are there: links, marks and
 * ports are all that it will change.
 */
export function dropControlRights(): Missing {
  return dropCapabilities([CAPABILITY.NET_ADMIN, CAPABILITY.NET_BIND_SERVICE]);
}

/** For data workers and lanes: descriptors that are open need no rights. */
export function dropWorkerRights(): Missing {
  return dropCapabilities([]);
}
