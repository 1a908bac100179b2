/**
 * What passes outside the tunnel: tcpdump writes it to a file, which is parsed
 * here (pcap of Ethernet frames with IPv4 or IPv6 and UDP).
 */
import { assertEquals } from "@std/assert";
import { formatIp } from "../../lib/ip.ts";
import type { Namespace } from "./lab.ts";
import { delay, type Process, until } from "./process.ts";

/** One UDP datagram as it was on the wire. */
export interface Datagram {
  readonly version: 4 | 6;
  /** The whole DS field with ECN. */
  readonly ds: number;
  readonly dontFragment: boolean;
  /** Address that it came from. */
  readonly source: string;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly payload: Uint8Array;
}

const MAGIC = 0xa1b2c3d4;
const FILE_HEADER = 24;
const RECORD_HEADER = 16;
const ETHERNET_HEADER = 14;
const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_IPV6 = 0x86dd;
const IPV6_HEADER = 40;
const UDP_HEADER = 8;
const PROTOCOL_UDP = 17;
/** tcpdump is given this long to see what was just sent. */
const SETTLE_MS = 200;

/** A running capture. */
export class Capture {
  readonly #process: Process;
  readonly #path: string;

  private constructor(process: Process, path: string) {
    this.#process = process;
    this.#path = path;
  }

  /** Starts to capture the UDP datagrams of a link. */
  static async start(namespace: Namespace, link: string): Promise<Capture> {
    const path = `${namespace.lab.directory}/${link}.pcap`;
    const process = namespace.spawn(
      [
        "tcpdump",
        "-i",
        link,
        "-U",
        "--immediate-mode",
        "-Z",
        "root",
        "-s",
        "0",
        "-w",
        path,
        "udp",
      ],
    );
    await until(
      "tcpdump to listen",
      () => /listening on/.test(process.said),
    );
    return new Capture(process, path);
  }

  /** Ends the capture. @returns the datagrams in order */
  async stop(): Promise<Datagram[]> {
    await delay(SETTLE_MS);
    this.#process.signal("SIGINT");
    await this.#process.ended();
    return parsePcap(Deno.readFileSync(this.#path));
  }
}

/** The UDP datagrams of a pcap file. Fragments but the first are left out. */
export function parsePcap(bytes: Uint8Array): Datagram[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  assertEquals(view.getUint32(0, true), MAGIC, "pcap in this byte order");
  const found: Datagram[] = [];
  for (let at = FILE_HEADER; at < bytes.length;) {
    const length = view.getUint32(at + 8, true);
    at += RECORD_HEADER;
    const datagram = parseFrame(bytes.subarray(at, at + length));
    if (datagram !== undefined) found.push(datagram);
    at += length;
  }
  return found;
}

function parseFrame(frame: Uint8Array): Datagram | undefined {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  const type = view.getUint16(12);
  const ip = ETHERNET_HEADER;
  let udp: number;
  let source: Uint8Array;
  let version: 4 | 6;
  let ds: number;
  let dontFragment = false;
  if (type === ETHERTYPE_IPV4) {
    const flags = view.getUint16(ip + 6);
    if (frame[ip + 9] !== PROTOCOL_UDP || (flags & 0x1fff) !== 0) return;
    version = 4;
    ds = frame[ip + 1];
    dontFragment = (flags & 0x4000) !== 0;
    source = frame.subarray(ip + 12, ip + 16);
    udp = ip + (frame[ip] & 15) * 4;
  } else if (type === ETHERTYPE_IPV6) {
    if (frame[ip + 6] !== PROTOCOL_UDP) return;
    version = 6;
    ds = (view.getUint16(ip) >> 4) & 255;
    source = frame.subarray(ip + 8, ip + 24);
    udp = ip + IPV6_HEADER;
  } else return;
  const length = view.getUint16(udp + 4);
  return {
    version,
    ds,
    dontFragment,
    source: formatIp(source),
    sourcePort: view.getUint16(udp),
    destinationPort: view.getUint16(udp + 2),
    payload: frame.subarray(udp + UDP_HEADER, udp + length),
  };
}
