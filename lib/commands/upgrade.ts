/**
 * `wgd upgrade IF`: the daemon of an interface is replaced by one of this
 * program, in place. Interface, addresses and routes stay, because the TUN stays
 * open; keys, peers and their endpoints go by UAPI; sessions are made anew at
 * once.
 *
 * @module
 */
import { startDaemon } from "../daemon.ts";
import { limitDaemon } from "../harden.ts";
import { uapiPath } from "../ipc.ts";
import { libc } from "../sys/libc.ts";
import { currentNetns, idOfNetns } from "../sys/netns.ts";
import {
  groupsOf,
  listenerOf,
  OtherProcess,
  startOf,
  tunDescriptors,
} from "../sys/process.ts";
import { takeoverEnvironment } from "../takeover.ts";
import { getDevice, listDevices, setDevice } from "../uapi_client.ts";
import type { CommandContext } from "./context.ts";
import { CliError, EXIT } from "./errors.ts";
import { type DeviceState, formatSet, type PeerState } from "../uapi_state.ts";

const STDERR = 2;
/** Sessions older than this are no more. */
const REJECT_AFTER_TIME_S = 180;
/** Turns a keepalive on, which begins a handshake. */
const KICK_S = 25;
/** Environment of the old daemon that the new one gets. */
const VARIABLES =
  /^(LOG_LEVEL|JOURNAL_STREAM|NOTIFY_SOCKET|WATCHDOG_USEC|STATE_DIRECTORY|WG_ENDPOINT_\w+)$/;

/** Runs `wgd upgrade`. */
export async function runCommand(ctx: CommandContext): Promise<number> {
  const [name] = ctx.args;
  if (!(await listDevices()).includes(name)) {
    throw new CliError(`${name} is not a WireGuard interface`);
  }
  const pid = listenerOf(uapiPath(name));
  const start = startOf(pid);
  const args = runArguments(name, start.args);
  if (!args.includes("--socket-netns") && isElsewhere(pid)) {
    throw new CliError(`${name} is up in another network namespace`);
  }
  const state = await getDevice(name);
  using old = new OtherProcess(pid);
  const [tun, ...more] = tunDescriptors(pid, name);
  if (tun === undefined) {
    throw new CliError(`process ${pid} has no TUN interface ${name}`);
  }
  if (more.length > 0) ctx.err(`wgd: ${name} goes on with one queue`);
  using taken = new DisposableStack();
  const take = (fd: number): number => {
    const own = old.takeDescriptor(fd);
    taken.defer(() => void libc().close(own));
    return own;
  };
  const tunFd = take(tun);
  const stderr = take(STDERR);
  const env = [...start.env].filter(([key]) => VARIABLES.test(key));
  limitDaemon(args.some((word) => /^--(socket-)?netns$/.test(word)));
  const startedMs = performance.now();
  const status = await startDaemon(args, {
    env: {
      ...Object.fromEntries(env),
      ...takeoverEnvironment(pid, { tun: tunFd, stderr }),
    },
    groups: groupsToEnter(pid),
  });
  if (status !== EXIT.OK) {
    ctx.err(`wgd: the new daemon of ${name} did not start: see its log`);
    return status;
  }
  await restore(name, state);
  const ms = Math.round(performance.now() - startedMs);
  ctx.err(`wgd: ${name} runs on in a new daemon, after ${ms} ms`);
  return EXIT.OK;
}

/** Arguments of `wgd run`, without what keeps it in the foreground. */
function runArguments(name: string, args: readonly string[]): string[] {
  const at = args.lastIndexOf("run");
  // `wgd IF` and `wgd -f IF` are short for it.
  const words = at < 0
    ? args.filter((word) => word === name)
    : args.slice(at + 1);
  const isOurs = args.some((word) => /(^|\/)(wgd[^/]*|cli\.[jt]s)$/.test(word));
  if (!isOurs || words.at(-1) !== name) {
    throw new CliError(`the daemon of ${name} is not wgd: ${args.join(" ")}`);
  }
  const own = words.filter((word) => word !== "-f" && word !== "--foreground");
  return ["run", ...own];
}

function isElsewhere(pid: number): boolean {
  return idOfNetns(`/proc/${pid}/ns/net`) !== currentNetns();
}

/** A service manager's, which would not find the new daemon otherwise. */
function groupsToEnter(pid: number): string[] {
  const here = new Set(groupsOf("self"));
  return groupsOf(pid).filter((group) => !here.has(group));
}

/** Gives the new daemon what the old one had, and its peers new sessions. */
async function restore(name: string, state: DeviceState): Promise<void> {
  const { privateKey, listenPort, fwmark, peers } = state;
  const hadSession = (peer: PeerState): boolean =>
    Date.now() / 1000 - peer.lastHandshakeSeconds < REJECT_AFTER_TIME_S;
  const quiet = peers.filter((peer) =>
    peer.persistentKeepalive === 0 && hadSession(peer)
  );
  await setDevice(
    name,
    formatSet({
      privateKey,
      listenPort,
      fwmark,
      replacePeers: true,
      peers: peers.map((peer) => ({
        publicKey: peer.publicKey,
        presharedKey: peer.presharedKey,
        endpoint: peer.endpoint,
        endpointName: peer.endpointName,
        persistentKeepalive: quiet.includes(peer)
          ? KICK_S
          : peer.persistentKeepalive,
        allowedIps: peer.allowedIps,
      })),
    }),
  );
  if (quiet.length === 0) return;
  await setDevice(
    name,
    formatSet({
      peers: quiet.map(({ publicKey }) => ({
        publicKey,
        updateOnly: true,
        persistentKeepalive: 0,
      })),
    }),
  );
}
