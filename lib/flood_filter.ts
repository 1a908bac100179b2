/**
 * Makes the UDP sockets drop a part of the handshake messages of a flood, before
 * they are queued: a filter of classic BPF that draws random numbers. Data
 * messages, and all else, pass.
 *
 * @module
 */
import type { FloodLevels } from "./handshake.ts";
import {
  INITIATION,
  MESSAGE_COOKIE_REPLY,
  MESSAGE_INITIATION,
  MESSAGE_RESPONSE,
  RESPONSE,
} from "./messages.ts";
import type { UdpSockets } from "./socket.ts";
import { check, libc } from "./sys/libc.ts";

const SOL_SOCKET = 1;
const SO_ATTACH_FILTER = 26;
const SO_DETACH_FILTER = 27;

// Instructions: code, jump if true, jump if false, value.
const LD_W_ABS = 0x20;
const JEQ = 0x15;
const JSET = 0x45;
const RET = 0x06;
const INSTRUCTION_BYTES = 8;
const FPROG_BYTES = 16;
const FPROG_FILTER = 8;
/** Place of a load that gives a random word. */
const RANDOM = 0xffff_f000 + 56;
const ACCEPT = 0xffff_ffff;
const DROP = 0;

/** Bytes before the payload: the filter sees the UDP header. */
const UDP_HEADER = 8;
const MAC_WORDS = 4;

type Label = "initiation" | "response" | "first" | "held" | "accept" | "drop";
type Instruction = readonly [
  code: number,
  value: number,
  ifTrue?: Label,
  ifFalse?: Label,
];

/** The program, as the system takes it. */
export function floodProgram(levels: FloodLevels): Uint8Array<ArrayBuffer> {
  const labels = new Map<Label, number>();
  const program: Instruction[] = [];
  /** Goes to "first" if the 16 bytes at `at` are zero, else to "held". */
  const lookAtMac2 = (at: number): void => {
    for (let word = 0; word < MAC_WORDS; word++) {
      program.push([LD_W_ABS, UDP_HEADER + at + 4 * word]);
      const last = word === MAC_WORDS - 1;
      program.push([JEQ, 0, last ? "first" : undefined, "held"]);
    }
  };
  const draw = (label: Label, level: number): void => {
    labels.set(label, program.length);
    program.push([LD_W_ABS, RANDOM]);
    program.push([JSET, 2 ** level - 1, "drop", "accept"]);
  };
  // The type and three zero bytes.
  const type = (message: number): number => message << 24;
  program.push([LD_W_ABS, UDP_HEADER]);
  program.push([JEQ, type(MESSAGE_INITIATION), "initiation"]);
  program.push([JEQ, type(MESSAGE_RESPONSE), "response"]);
  program.push([JEQ, type(MESSAGE_COOKIE_REPLY), "held", "accept"]);
  labels.set("initiation", program.length);
  lookAtMac2(INITIATION.mac2);
  labels.set("response", program.length);
  lookAtMac2(RESPONSE.mac2);
  draw("first", levels[0]);
  draw("held", levels[1]);
  labels.set("accept", program.length);
  program.push([RET, ACCEPT]);
  labels.set("drop", program.length);
  program.push([RET, DROP]);
  const bytes = new Uint8Array(program.length * INSTRUCTION_BYTES);
  const view = new DataView(bytes.buffer);
  for (const [i, [code, value, ifTrue, ifFalse]] of program.entries()) {
    const jump = (to: Label | undefined): number =>
      to === undefined ? 0 : (labels.get(to) ?? 0) - i - 1;
    view.setUint16(i * INSTRUCTION_BYTES, code, true);
    view.setUint8(i * INSTRUCTION_BYTES + 2, jump(ifTrue));
    view.setUint8(i * INSTRUCTION_BYTES + 3, jump(ifFalse));
    view.setUint32(i * INSTRUCTION_BYTES + 4, value, true);
  }
  return bytes;
}

/** Puts the filter on the sockets, or takes it off. @throws SysError */
export function setFloodFilter(sockets: UdpSockets, levels: FloodLevels): void {
  const calm = levels.every((level) => level === 0);
  const filter = floodProgram(levels);
  const fprog = new Uint8Array(FPROG_BYTES);
  const view = new DataView(fprog.buffer);
  view.setUint16(0, filter.length / INSTRUCTION_BYTES, true);
  const at = Deno.UnsafePointer.value(Deno.UnsafePointer.of(filter));
  view.setBigUint64(FPROG_FILTER, BigInt(at), true);
  for (const fd of [sockets.v6, sockets.v4]) {
    if (fd < 0) continue;
    const option = calm ? SO_DETACH_FILTER : SO_ATTACH_FILTER;
    const result = libc().setsockopt(
      fd,
      SOL_SOCKET,
      option,
      fprog,
      FPROG_BYTES,
    );
    check(result, "set the filter of the UDP socket");
  }
}
