/**
 * How the namespace tests are declared: with what they need, with a lab of
 * their own, and with a look afterwards at whether anything is left.
 */
import "../bind_libc.ts";
import { assertNothingLeft, Lab } from "./lab.ts";
import { missing } from "./requirements.ts";

/** What a test needs. */
export interface LabTestOptions {
  /** Programs besides ip, ss, wg and ping. */
  readonly programs?: readonly string[];
  /** Only with WGD_SLOW=1. */
  readonly slow?: boolean;
  /** Whether the two namespaces are joined by veth. */
  readonly joined?: boolean;
  /** Why it cannot run here, besides what is missing. */
  readonly skip?: string;
}

/** Declares a test that gets a lab. */
export function labTest(
  name: string,
  options: LabTestOptions,
  test: (lab: Lab) => Promise<void>,
): void {
  const slow = options.slow === true && Deno.env.get("WGD_SLOW") !== "1"
    ? "slow: run it with WGD_SLOW=1"
    : undefined;
  const why = missing(options.programs ?? []) ?? options.skip ?? slow;
  if (why !== undefined) report(`skipped: ${name}: ${why}`);
  Deno.test({
    name,
    ignore: why !== undefined,
    sanitizeOps: true,
    sanitizeResources: true,
    async fn(): Promise<void> {
      {
        await using lab = await Lab.make({ joined: options.joined ?? true });
        await test(lab);
      }
      await assertNothingLeft();
    },
  });
}

function report(line: string): void {
  Deno.stderr.writeSync(new TextEncoder().encode(`${line}\n`));
}
