/**
 * Binds all of libc when it is imported, in tests that look for what is left
 * open: a function that is bound at its first use stays so (lib/sys/libc).
 */
import { libc } from "../lib/sys/libc.ts";

if (Deno.build.os === "linux") {
  const c = libc();
  for (const symbol of Object.getOwnPropertyNames(c)) {
    void c[symbol as keyof typeof c];
  }
}
