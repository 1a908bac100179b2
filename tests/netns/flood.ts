/**
 * Throws random and malformed datagrams at a port: of all sizes and all message
 * types, with much that is almost right. Arguments: address, port, count.
 */
const [hostname, port, count] = Deno.args;

const SIZES = [0, 1, 3, 4, 31, 32, 33, 63, 64, 91, 92, 93, 147, 148, 149, 1452];
const OVERSIZED = 65_507;
const OVERSIZED_EVERY = 500;
/** So that the receiver's buffer is not all that is tested. */
const PAUSE_EVERY = 50;
const RANDOM_MAX = 65_536;

const socket = Deno.listenDatagram({
  transport: "udp",
  hostname: hostname.includes(":") ? "::" : "0.0.0.0",
  port: 0,
});
const bytes = new Uint8Array(OVERSIZED);
for (let at = 0; at < OVERSIZED; at += RANDOM_MAX) {
  crypto.getRandomValues(bytes.subarray(at, at + RANDOM_MAX));
}
const to: Deno.NetAddr = { transport: "udp", hostname, port: Number(port) };
let sent = 0;
for (let i = 0; i < Number(count); i++) {
  const size = i % OVERSIZED_EVERY === 0
    ? OVERSIZED - (i / OVERSIZED_EVERY)
    : i % 2 === 0
    ? SIZES[(i / 2) % SIZES.length]
    : Math.floor(Math.random() * 2000);
  const from = Math.floor(Math.random() * (OVERSIZED - size));
  const datagram = bytes.slice(from, from + size);
  // Types 0 to 5 with reserved bytes of zero, or what came by chance.
  if (i % 8 !== 7) datagram.set([i % 6, 0, 0, 0].slice(0, size));
  sent += await socket.send(datagram, to).then(() => 1, () => 0);
  if (i % PAUSE_EVERY === 0) await new Promise((done) => setTimeout(done, 2));
}
Deno.stdout.writeSync(new TextEncoder().encode(`sent ${sent}\n`));
socket.close();
