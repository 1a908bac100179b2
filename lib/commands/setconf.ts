/**
 * `wgd setconf`, `addconf` and `syncconf`: a configuration file to a running
 * device. setconf makes the device what the file says, all of it; addconf adds;
 * syncconf ends where setconf does, but sends what differs alone.
 *
 * Where the file names no ListenPort, syncconf keeps the port that the device
 * has: any will do, and wg's moving the socket to another one would cut off the
 * peers that syncconf is meant to keep.
 *
 * @module
 */
import { KEY_BYTES } from "../crypto/bytes.ts";
import { setDevice, syncDevice } from "../uapi_client.ts";
import { formatSet } from "../uapi_state.ts";
import { readWgConfig, resolvePeers } from "./configure.ts";
import { EXIT } from "./errors.ts";
import type { InterfaceConfig } from "../config.ts";
import type { PeerTarget } from "../sync.ts";
import type { CommandContext } from "./context.ts";

const NO_KEY = new Uint8Array(KEY_BYTES);

/** What is done with the device, once the file is read and names resolved. */
type Apply = (
  name: string,
  device: InterfaceConfig,
  peers: readonly PeerTarget[],
) => Promise<unknown>;

async function run(ctx: CommandContext, apply: Apply): Promise<number> {
  const [name, path] = ctx.args;
  const config = readWgConfig(path, ctx);
  const peers = await resolvePeers(config.peers, ctx);
  await apply(name, config.interface, peers);
  return EXIT.OK;
}

const setconf: Apply = (name, device, peers) => {
  const { privateKey = NO_KEY, listenPort = 0, fwmark = 0 } = device;
  return setDevice(
    name,
    formatSet({
      privateKey,
      listenPort,
      fwmark,
      replacePeers: true,
      peers: peers.map((peer) => ({ ...peer, replaceAllowedIps: true })),
    }),
  );
};

const addconf: Apply = (name, device, peers) => {
  const { privateKey, listenPort, fwmark } = device;
  return setDevice(
    name,
    formatSet({
      privateKey,
      listenPort,
      fwmark,
      peers: peers.map((peer) => ({ ...peer, replaceAllowedIps: true })),
    }),
  );
};

const syncconf: Apply = (name, device, peers) => {
  const { privateKey = NO_KEY, listenPort, fwmark = 0 } = device;
  return syncDevice(name, { privateKey, listenPort, fwmark, peers });
};

/** `wgd setconf IF FILE` */
export function setconfCommand(ctx: CommandContext): Promise<number> {
  return run(ctx, setconf);
}

/** `wgd addconf IF FILE` */
export function addconfCommand(ctx: CommandContext): Promise<number> {
  return run(ctx, addconf);
}

/** `wgd syncconf IF FILE` */
export function syncconfCommand(ctx: CommandContext): Promise<number> {
  return run(ctx, syncconf);
}
