/** Holds a UDP port until it is ended; says so first. The argument is the port. */
const [port] = Deno.args;
const socket = Deno.listenDatagram({
  transport: "udp",
  hostname: "::",
  port: Number(port),
});
Deno.stdout.writeSync(new TextEncoder().encode("held\n"));
for await (const _ of socket);
