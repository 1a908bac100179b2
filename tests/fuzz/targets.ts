/**
 * The fuzz targets, on the real code.
 *
 * @module
 */
import { Coalescer } from "../../lib/coalesce.ts";
import { formatConfig, parseConfig } from "../../lib/config.ts";
import { finishChecksum, SegmentWalk, Splitter } from "../../lib/segments.ts";
import { LineSplitter, serveUapi } from "../../lib/uapi.ts";
import { ConfigTarget } from "./config.ts";
import type { Target } from "./engine.ts";
import { HandshakeTarget } from "./handshake.ts";
import { MergeTarget } from "./merge.ts";
import { NETLINK, NetlinkTarget } from "./netlink.ts";
import { SplitTarget } from "./split.ts";
import { TunTarget } from "./tun.ts";
import { UapiTarget } from "./uapi.ts";
import { WalkTarget } from "./walk.ts";

/** Makes each of the targets, by name. */
export const TARGETS: Readonly<Record<string, () => Target>> = {
  split: () => new SplitTarget({ Splitter, finishChecksum }),
  merge: () => new MergeTarget(Coalescer),
  walk: () => new WalkTarget(SegmentWalk),
  config: () => new ConfigTarget({ parseConfig, formatConfig }),
  uapi: () => new UapiTarget({ serveUapi, LineSplitter }),
  handshake: () => new HandshakeTarget(),
  tun: () => new TunTarget(),
  netlink: () => new NetlinkTarget(NETLINK),
};
