/**
 * The fuzz targets in the normal suite: the whole corpus, past findings among
 * it, and a seeded share of new inputs; and mistakes made on purpose, each of
 * which must be found. `deno task fuzz` goes on from here.
 *
 * @module
 */
import { assertRejects } from "@std/assert";
import { Coalescer } from "../../lib/coalesce.ts";
import { formatConfig, parseConfig } from "../../lib/config.ts";
import { KEYPAIR, PEER } from "../../lib/records.ts";
import {
  finishChecksum,
  SegmentWalk,
  Splitter,
  VNET_HEADER,
} from "../../lib/segments.ts";
import { LineSplitter, serveUapi } from "../../lib/uapi.ts";
import type { MemoryDevice } from "../memory/device.ts";
import { DATA, setEndpoint } from "../memory/pair.ts";
import { ConfigTarget } from "./config.ts";
import { Finding, Fuzzer, readCorpus, type Target } from "./engine.ts";
import { HandshakeTarget } from "./handshake.ts";
import { Scene } from "./handshake_scene.ts";
import { MergeTarget } from "./merge.ts";
import { NETLINK, NetlinkTarget } from "./netlink.ts";
import { SplitTarget } from "./split.ts";
import { TARGETS } from "./targets.ts";
import { offloadingDevice, TunTarget } from "./tun.ts";
import { UapiTarget } from "./uapi.ts";
import { WalkTarget } from "./walk.ts";

const SEED = 20_240_607;
/** Inputs of each target. */
const SHARE: Readonly<Record<string, number>> = {
  split: 8_000,
  merge: 3_000,
  walk: 20_000,
  config: 2_000,
  uapi: 2_000,
  handshake: 600,
  tun: 3_000,
  netlink: 20_000,
};
/** Inputs, after the corpus, within which a mistake is found. */
const FOUND_WITHIN = 20_000;

function fuzzerOf(target: Target): Fuzzer {
  return new Fuzzer(target, [...readCorpus(target.name).values()], SEED);
}

for (const [name, make] of Object.entries(TARGETS)) {
  Deno.test(`fuzz ${name}: nothing is found in the corpus`, async () => {
    const target = make();
    for (const [file, input] of readCorpus(name)) {
      try {
        await target.run(input);
      } catch (error) {
        throw new Error(`corpus/${name}/${file}`, { cause: error });
      }
    }
  });

  Deno.test(`fuzz ${name}: nothing is found in ${SHARE[name]} inputs`, async () => {
    await fuzzerOf(make()).run(SHARE[name]);
  });
}

/** Reads a byte behind the super-packet when the last segment is short. */
class ReadsBehind extends Splitter {
  readonly #u8;
  #end = 0;

  constructor(...[arena, checksum]: ConstructorParameters<typeof Splitter>) {
    super(arena, checksum);
    this.#u8 = arena.u8;
  }
  override start(at: number, length: number): number {
    this.#end = at + length;
    return super.start(at, length);
  }
  override next(to: number): number {
    const length = super.next(to);
    if (length % 16 === 15) this.#u8[to + length - 1] = this.#u8[this.#end];
    return length;
  }
}

/** Writes a word where the segment has a byte left. */
class WritesBehind extends Splitter {
  readonly #u8;

  constructor(...[arena, checksum]: ConstructorParameters<typeof Splitter>) {
    super(arena, checksum);
    this.#u8 = arena.u8;
  }
  override next(to: number): number {
    const length = super.next(to);
    if (length % 2 === 1) this.#u8[to + length] = 0;
    return length;
  }
}

/** Believes any header that names a segment's size. */
class Believes extends Splitter {
  override start(at: number, length: number): number {
    return super.start(at, length) || 1;
  }
}

/** Lets each packet that is not long go first. */
class Overtakes extends Coalescer {
  #held: [number, number] | undefined;

  override add(at: number, length: number): number {
    if (length > 200 && this.#held === undefined) {
      this.#held = [at, length];
      return 0;
    }
    return super.add(at, length);
  }
  override flush(): number {
    const held = this.#held;
    this.#held = undefined;
    const lost = held === undefined ? 0 : super.add(...held);
    return lost + super.flush();
  }
}

/** Merges whatever comes behind a packet, by making its checksum right. */
class Alters extends Coalescer {
  readonly #u8;

  constructor(...parts: ConstructorParameters<typeof Coalescer>) {
    super(...parts);
    this.#u8 = parts[0].u8;
  }
  override add(at: number, length: number): number {
    // The urgent pointer, which nobody looks at.
    if (this.#u8[at] === 0x45 && this.#u8[at + 9] === 6 && length > 40) {
      this.#u8[at + 39] = 0;
    }
    return super.add(at, length);
  }
}

/** Forgets how many packets were lost. */
class Forgets extends Coalescer {
  override flush(): number {
    super.flush();
    return 0;
  }
}

/** Gives the last segment a whole size. */
class Overruns extends SegmentWalk {
  #size = 0;

  override start(offset: number, length: number, size: number): this {
    this.#size = size;
    return super.start(offset, length, size);
  }
  override next(): boolean {
    const more = super.next();
    if (more && this.last && this.#size > this.length) {
      this.length = this.#size;
    }
    return more;
  }
}

/** Takes a carriage return for the end of a line. */
class SplitsAtReturns extends LineSplitter {
  override push(chunk: Uint8Array): void {
    super.push(chunk.map((byte) => byte === 13 ? 10 : byte));
  }
}

/** Forgets which nonces it received. */
class Forgetful extends Scene {
  override inject(bytes: Uint8Array, from: string): void {
    const { arena } = this.device;
    for (const slot of [PEER.CURRENT, PEER.NEXT]) {
      const keypair = arena.i32[arena.peer(this.peer) + slot];
      if (keypair === 0) continue;
      const word = arena.keypair(keypair);
      arena.u32.fill(0, word + KEYPAIR.REPLAY_BITMAP, word + KEYPAIR.WORDS);
    }
    super.inject(bytes, from);
  }
}

/** Follows whoever sends anything that looks like data. */
class Follows extends Scene {
  override inject(bytes: Uint8Array, from: string): void {
    super.inject(bytes, from);
    this.network.settle();
    if (bytes[0] === DATA) setEndpoint(this.device, this.peer, from);
  }
}

/** A device whose interface is read wrongly. */
function misread(
  read: (device: MemoryDevice, at: number, length: number) => number,
): Target {
  return new TunTarget((network, address) => {
    const device = offloadingDevice(network, address);
    const right = device.read.bind(device);
    device.read = (at, capacity) => {
      const length = right(at, capacity);
      return length === 0 ? 0 : read(device, at, length);
    };
    return device;
  });
}

const splitOf = (Code: typeof Splitter): Target =>
  new SplitTarget({ Splitter: Code, finishChecksum });

const MISTAKES: Readonly<Record<string, Target>> = {
  "a split that reads behind the packet": splitOf(ReadsBehind),
  "a split that writes behind the segment": splitOf(WritesBehind),
  "a split that believes headers": splitOf(Believes),
  "a checksum finished without a look at the header": new SplitTarget({
    Splitter,
    finishChecksum: (arena, checksum, at, length) =>
      finishChecksum(arena, checksum, at, length + 1),
  }),
  "a merge that changes the order": new MergeTarget(Overtakes),
  "a merge that changes packets": new MergeTarget(Alters),
  "a merge that loses packets and says nothing": new MergeTarget(Forgets),
  "a walk out of the message": new WalkTarget(Overruns),
  "a configuration written without its marks": new ConfigTarget({
    parseConfig,
    formatConfig: (config) => formatConfig(config).replace(/^FwMark.*$/m, ""),
  }),
  "a parser that throws what it did not declare": new ConfigTarget({
    formatConfig,
    parseConfig: (text, options) => {
      if (/^MTU = *$/m.test(text)) throw new TypeError("no MTU");
      return parseConfig(text, options);
    },
  }),
  "a parser that shows keys": new ConfigTarget({
    formatConfig,
    parseConfig: (text, options) => {
      const parsed = parseConfig(text, options);
      parsed.warnings.push(...text.match(/P\w+Key.*/g) ?? []);
      return parsed;
    },
  }),
  "a device that forgets what it received": new HandshakeTarget((state) =>
    new Forgetful(state)
  ),
  "a device that follows anybody": new HandshakeTarget((state) =>
    new Follows(state)
  ),
  "a device that does not look at vnet headers": misread(
    ({ arena }, at, length) => {
      arena.u8.fill(0, at - VNET_HEADER, at);
      return length;
    },
  ),
  "a device that reads a byte too many": misread((_device, _at, length) =>
    length + 1
  ),
  "an answer read to its buffer's end": new NetlinkTarget({
    ...NETLINK,
    readAnswer: (buffer) => NETLINK.readAnswer(buffer, buffer.byteLength),
  }),
  "a route's MTU that another interface has": new NetlinkTarget({
    ...NETLINK,
    readMtu: (body) => NETLINK.readMtu(body, NETLINK.readInterface(body) ?? 0),
  }),
  "lines that end at other places": new UapiTarget({
    serveUapi,
    LineSplitter: SplitsAtReturns,
  }),
  "a connection that serves a port above the last": new UapiTarget({
    LineSplitter,
    serveUapi: (connection, sink, source) =>
      serveUapi(
        connection,
        new Proxy(sink, {
          get: (target, name) =>
            name === "setListenPort"
              ? (port: number) => target.setListenPort(port + 1)
              : Reflect.get(target, name).bind(target),
        }),
        source,
      ),
  }),
};

/** The corpus, and new inputs. @throws Finding */
async function find(target: Target): Promise<void> {
  for (const input of readCorpus(target.name).values()) {
    try {
      await target.run(input);
    } catch (error) {
      throw new Finding(target.name, input, error);
    }
  }
  await fuzzerOf(target).run(FOUND_WITHIN);
}

for (const [mistake, target] of Object.entries(MISTAKES)) {
  Deno.test(`fuzz ${target.name} finds ${mistake}`, async () => {
    await assertRejects(() => find(target), Finding);
  });
}
