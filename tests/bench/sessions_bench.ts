/**
 * Many live sessions on one device, in memory, their far ends played here: CPU
 * time of the device alone, on one thread.
 *
 * - handshakes: initiations answered in a second;
 * - packets: opened and sealed in rotation over all sessions, beside one session;
 * - memory of a session;
 * - storm: all peers of a device that was started anew shake hands at once and
 *   repeat every 5 s until they are answered; the clock is the device's CPU time.
 *
 *     deno run -A tests/bench/sessions_bench.ts [--sessions N] [--storm N] [--json]
 *
 * @module
 */

// deno-lint-ignore-file no-console

import { parseArgs } from "@std/cli/parse-args";
import { generatePrivateKey } from "../../lib/crypto/x25519.ts";
import {
  MAX_QUEUED_INCOMING_HANDSHAKES,
  MESSAGE_COOKIE_REPLY,
  MESSAGE_RESPONSE,
  REKEY_TIMEOUT_JITTER_MS,
  REKEY_TIMEOUT_MS,
} from "../../lib/messages.ts";
import { SeededRandom } from "../../lib/selftest/random.ts";
import { FarEnds } from "../memory/far_ends.ts";
import {
  type Datagram,
  ipv4Packet,
  MemoryDevice,
  Network,
} from "../memory/network.ts";
import { threadCpuMs } from "./thread_clock.ts";

const PACKET_BYTES = 1408;
const PACKETS = 20_000;
/** Datagrams that the device has to read at a time, as from a socket's buffer. */
const FEED = 64;
const HUB = "192.0.2.1:1";
const HUB_INNER = "10.0.0.1";
/** All far ends begin within this time of the start. */
const STORM_SPREAD_MS = 1_000;
const STORM_LIMIT_MS = 600_000;
const STORM_TELL_MS = 5_000;

const options = parseArgs(Deno.args, {
  boolean: ["json"],
  string: ["sessions", "storm"],
  default: { sessions: "10000", storm: "50000" },
});

function inner(i: number): string {
  return `10.${64 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`;
}

/** A device with many peers, and these. */
class Bench {
  readonly network = new Network();
  readonly hub: MemoryDevice;
  readonly far: FarEnds;
  readonly count: number;
  /** What the device sent since it was looked at last. */
  sent: Uint8Array[] = [];
  /** CPU time of the device. */
  cpuMs = 0;

  constructor(count: number) {
    this.count = count;
    this.hub = new MemoryDevice(this.network, HUB, {
      peers: count,
      allowedIpNodes: 2 * count,
      sessions: count,
      txSlots: 4096,
    });
    this.network.wire = ({ bytes }): Datagram[] => {
      this.sent.push(bytes);
      return [];
    };
    const { control } = this.hub;
    control.setPrivateKey(generatePrivateKey());
    this.far = new FarEnds(control.publicKey as Uint8Array);
    for (let i = 0; i < count; i++) {
      const peer = control.createPeer(this.far.add());
      const address = Uint8Array.from(inner(i).split("."), Number);
      control.allowedIps.insert(address, 32, peer);
    }
    control.up();
    this.run();
  }

  /** Brings a datagram of far end `i` to the device. */
  send(i: number, bytes: Uint8Array): void {
    const from = `198.${51 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}:7`;
    this.hub.incoming.push({ from, to: HUB, ds: 0, sticky: false, bytes });
  }

  /** Lets the device work until it has nothing to do; counts its CPU time. */
  run(): void {
    const before = threadCpuMs();
    const { hub, network } = this;
    while (hub.pump());
    this.cpuMs += threadCpuMs() - before;
    network.log.length = 0;
  }

  /** Shakes hands with the first `count` far ends. @returns CPU ms of the device */
  connect(count: number): number {
    const { far } = this;
    const before = this.cpuMs;
    for (let i = 0; i < count; i += FEED) {
      for (let j = i; j < Math.min(count, i + FEED); j++) {
        this.send(j, far.initiation(j));
      }
      this.run();
      for (const message of this.sent.splice(0)) far.consume(message);
    }
    const cpuMs = this.cpuMs - before;
    for (let i = 0; i < count; i++) {
      if (!far.connected(i)) throw new Error(`far end ${i} got no answer`);
      this.send(i, far.data(i, new Uint8Array(0)));
      if (i % FEED === 0) this.run();
    }
    this.run();
    return cpuMs;
  }

  /** CPU µs of a packet that is opened, in rotation over `sessions`. */
  receive(sessions: number): number {
    const { hub, far } = this;
    const before = this.cpuMs;
    let wrong = 0;
    const last = new Map<number, number>();
    hub.onDelivery = (packet) => {
      const i = (packet[14] << 8) | packet[15];
      const number = packet[20] << 8 | packet[21];
      if (number <= (last.get(i) ?? -1)) wrong++;
      last.set(i, number);
      hub.delivered.length = 0;
    };
    for (let n = 0; n < PACKETS;) {
      for (let j = 0; j < FEED; j++, n++) {
        const i = n % sessions;
        const packet = ipv4Packet(inner(i), HUB_INNER, PACKET_BYTES);
        const number = Math.floor(n / sessions);
        packet[20] = number >> 8;
        packet[21] = number;
        this.send(i, far.data(i, packet));
      }
      this.run();
    }
    if (wrong > 0) throw new Error(`${wrong} packets out of order`);
    return (this.cpuMs - before) * 1000 / PACKETS;
  }

  /** CPU µs of a packet that is sealed, in rotation over `sessions`. */
  transmit(sessions: number): number {
    const before = this.cpuMs;
    this.sent.length = 0;
    for (let n = 0; n < PACKETS;) {
      for (let j = 0; j < FEED; j++, n++) {
        const to = inner(n % sessions);
        this.hub.toSend.push(ipv4Packet(HUB_INNER, to, PACKET_BYTES));
      }
      this.run();
    }
    const { length } = this.sent.splice(0);
    if (length < PACKETS) throw new Error(`${length} of ${PACKETS} were sent`);
    return (this.cpuMs - before) * 1000 / PACKETS;
  }
}

function residentBytes(): number {
  const status = Deno.readTextFileSync("/proc/self/status");
  return Number(/RssShmem:\s*(\d+)|VmRSS:\s*(\d+)/.exec(status)?.[2]) * 1024;
}

/** Bytes of the arena that are not zero, in whole pages: what sessions touch. */
function touchedBytes({ hub }: Bench): number {
  const { u32 } = hub.arena;
  const PAGE_WORDS = 1024;
  let pages = 0;
  for (let at = 0; at < u32.length; at += PAGE_WORDS) {
    for (let i = at; i < at + PAGE_WORDS; i++) {
      if (u32[i] !== 0) {
        pages++;
        break;
      }
    }
  }
  return pages * PAGE_WORDS * 4;
}

function measureSessions(count: number): Record<string, number> {
  const bench = new Bench(count);
  const idle = touchedBytes(bench);
  const cpuMs = bench.connect(count);
  const figures: Record<string, number> = {
    "sessions": count,
    "handshakes_answered_per_s": 1000 * count / cpuMs,
    "handshake_cpu_us": 1000 * cpuMs / count,
    "bytes_a_session": (touchedBytes(bench) - idle) / count,
  };
  // Compiles what both need.
  bench.receive(1);
  bench.transmit(1);
  for (const [name, sessions] of [["one", 1], ["all", count]] as const) {
    figures[`open_us_${name}`] = bench.receive(sessions);
    figures[`seal_us_${name}`] = bench.transmit(sessions);
  }
  figures["rss_mb"] = residentBytes() / 1e6;
  const left = bench.hub.close();
  figures["objects_left"] = Object.values(left).reduce((a, b) => a + b, 0);
  return figures;
}

/** One initiation of a far end in the storm. */
interface Attempt {
  readonly atMs: number;
  readonly i: number;
}

function measureStorm(count: number): Record<string, number> {
  const bench = new Bench(count);
  const { network, hub, far } = bench;
  const random = new SeededRandom(7);
  const startMs = network.nowMs;
  let toldMs = startMs + STORM_TELL_MS;
  const retryMs = (): number =>
    REKEY_TIMEOUT_MS + random.below(REKEY_TIMEOUT_JITTER_MS);
  let queue: Attempt[] = Array.from({ length: count }, (_, i) => ({
    atMs: startMs + random.below(STORM_SPREAD_MS),
    i,
  }));
  queue.sort((a, b) => a.atMs - b.atMs);
  const later: Attempt[] = [];
  let [connected, halfMs, sent, cookies] = [0, 0, 0, 0];
  while (connected < count && network.nowMs - startMs < STORM_LIMIT_MS) {
    // What came in by now, as the inbound worker reads it: without waiting.
    let fed = 0;
    while (queue.length > 0 && queue[0].atMs <= network.nowMs) {
      const { i, atMs } = queue.shift() as Attempt;
      if (far.connected(i)) continue;
      later.push({ atMs: atMs + retryMs(), i });
      bench.send(i, far.initiation(i));
      sent++;
      if (++fed % FEED === 0) hub.inbound.pump(network.nowMs);
    }
    if (queue.length === 0) {
      queue = later.splice(0).sort((a, b) => a.atMs - b.atMs);
    }
    const before = threadCpuMs();
    while (hub.incoming.length > 0) hub.inbound.pump(network.nowMs);
    const worked = hub.control.pump();
    hub.outbound.pump(network.nowMs);
    const usedMs = threadCpuMs() - before;
    network.log.length = 0;
    for (const message of bench.sent.splice(0)) {
      const { type } = far.consume(message);
      if (type === MESSAGE_RESPONSE) connected++;
      if (type === MESSAGE_COOKIE_REPLY) cookies++;
    }
    if (network.nowMs >= toldMs) {
      toldMs += STORM_TELL_MS;
      const seconds = (network.nowMs - startMs) / 1000;
      console.error(`${seconds.toFixed(0)} s: ${connected} connected`);
    }
    if (halfMs === 0 && connected >= count / 2) {
      halfMs = network.nowMs - startMs;
    }
    network.nowMs += worked ? usedMs : 1;
  }
  return {
    "peers": count,
    "half_connected_s": halfMs / 1000,
    "all_connected_s": (network.nowMs - startMs) / 1000,
    "connected": connected,
    "initiations_a_peer": sent / count,
    "cookie_replies_a_peer": cookies / count,
    "queue": MAX_QUEUED_INCOMING_HANDSHAKES,
    "queue_full": hub.counters().rx_handshake_queue_full ?? 0,
    "no_memory": hub.counters().handshake_no_memory ?? 0,
  };
}

/** Prints what is done at once, as the storm takes minutes. */
function done(title: string, figures: Record<string, number>): typeof figures {
  if (options.json) return figures;
  console.log(title);
  for (const [name, value] of Object.entries(figures)) {
    console.log(`${name.padStart(28)}${value.toFixed(2).padStart(14)}`);
  }
  return figures;
}

const results = {
  sessions: done("sessions", measureSessions(Number(options.sessions))),
  storm: done("storm", measureStorm(Number(options.storm))),
};
if (options.json) console.log(JSON.stringify(results));
