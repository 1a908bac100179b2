/** A lab with a daemon that stays until the program is ended; for harness_test. */
import { Lab } from "./lab.ts";

const lab = await Lab.make();
const daemon = await lab.a.daemon("wgd");
const line = `ready ${daemon.name} ${daemon.process.pid}\n`;
Deno.stdout.writeSync(new TextEncoder().encode(line));
await daemon.process.ended(600_000);
