/**
 * The program `wgd`.
 *
 * @module
 */
import { main } from "./lib/commands/main.ts";

if (import.meta.main) Deno.exit(await main(Deno.args));
