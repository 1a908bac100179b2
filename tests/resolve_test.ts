/** lib/resolve: wg's rules of when and how often a name is tried again. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { formatSocketAddress, parseEndpoint } from "../lib/ip.ts";
import {
  type Lookup,
  RESOLUTION_RETRIES,
  resolutionRetries,
  resolveAddresses,
  resolveEndpoint,
  ResolveError,
} from "../lib/resolve.ts";
import { EAI, lookupEndpoint, servicePort } from "../lib/sys/getaddrinfo.ts";
import type { Endpoint } from "../lib/ip.ts";
import type { LookupAnswer } from "../lib/sys/getaddrinfo.ts";

const NAME: Endpoint = { host: "vpn.example.com", port: 51820 };
const FOUND: LookupAnswer = {
  addresses: [
    { address: new Uint8Array([192, 0, 2, 1]), port: 51820, scopeId: 0 },
    { address: new Uint8Array(16).fill(1), port: 51820, scopeId: 2 },
  ],
};

function failure(error: number): LookupAnswer {
  return { error, reason: "Temporary failure in name resolution" };
}

/** A resolver that gives these answers, the last one for ever. */
function answers(...list: LookupAnswer[]): { lookup: Lookup; count: number } {
  const fake = {
    count: 0,
    lookup: (): Promise<LookupAnswer> => {
      const answer = list[Math.min(fake.count, list.length - 1)];
      fake.count++;
      return Promise.resolve(answer);
    },
  };
  return fake;
}

/** Delays that are counted, not waited for. */
function delays(): { list: number[]; delay: (ms: number) => Promise<void> } {
  const list: number[] = [];
  return {
    list,
    delay: (ms) => {
      list.push(ms);
      return Promise.resolve();
    },
  };
}

Deno.test("literal addresses are not looked up", async () => {
  const fake = answers(failure(EAI.FAIL));
  for (const text of ["192.0.2.1:5", "[fd00::1]:5"]) {
    const endpoint = parseEndpoint(text);
    assert(endpoint);
    const [address] = await resolveAddresses(endpoint, fake.lookup);
    assertEquals(formatSocketAddress(address), text);
  }
  assertEquals(fake.count, 0);
});

Deno.test("the scope of an address must be a link that there is", async () => {
  const endpoint = parseEndpoint("[fe80::1%eth0]:5");
  assert(endpoint);
  const [address] = await resolveAddresses(endpoint, answers(FOUND).lookup);
  assertEquals(formatSocketAddress(address), "[fe80::1%eth0]:5");
  await assertRejects(
    () => resolveEndpoint(endpoint, answers(failure(EAI.NONAME))),
    ResolveError,
    "`[fe80::1%eth0]:5'",
  );
});

Deno.test("the first address is taken; one try tells all of them", async () => {
  const { lookup } = answers(FOUND);
  const first = await resolveEndpoint(NAME, { lookup });
  assertEquals(formatSocketAddress(first), "192.0.2.1:51820");
  const all = await resolveAddresses(NAME, lookup);
  assertEquals(all.map(formatSocketAddress), [
    "192.0.2.1:51820",
    "[101:101:101:101:101:101:101:101%2]:51820",
  ]);
});

Deno.test("what may pass is tried again, each time later, 20 s at most", async () => {
  const fake = answers(failure(EAI.AGAIN));
  const { list, delay } = delays();
  const lines: string[] = [];
  const error = await assertRejects(
    () =>
      resolveEndpoint(NAME, {
        lookup: fake.lookup,
        delay,
        retries: 20,
        onRetry: (line) => void lines.push(line),
      }),
    ResolveError,
    "Temporary failure in name resolution: `vpn.example.com:51820'",
  );
  assertEquals(error.isPermanent, false);
  assertEquals([fake.count, list.length], [21, 20]);
  assertEquals(list.slice(0, 3), [1000, 1200, 1440]);
  assertEquals(list.slice(-2), [20000, 20000]);
  assertEquals(
    lines[1],
    "Temporary failure in name resolution: `vpn.example.com:51820'. " +
      "Trying again in 1.20 seconds...",
  );
});

Deno.test("15 times unless told otherwise, or for ever", async () => {
  const fake = answers(failure(EAI.SYSTEM));
  const options = { lookup: fake.lookup, delay: delays().delay };
  await assertRejects(() => resolveEndpoint(NAME, options), ResolveError);
  assertEquals(fake.count, 1 + RESOLUTION_RETRIES);
  const late = answers(...Array(100).fill(failure(EAI.AGAIN)), FOUND);
  await resolveEndpoint(NAME, {
    ...options,
    lookup: late.lookup,
    retries: Infinity,
  });
  assertEquals(late.count, 101);
  const once = answers(failure(EAI.AGAIN));
  await assertRejects(
    () => resolveEndpoint(NAME, { lookup: once.lookup, retries: 0 }),
    ResolveError,
  );
  assertEquals(once.count, 1);
});

Deno.test("what is final is not tried again", async () => {
  for (const code of [EAI.NONAME, EAI.FAIL, EAI.NODATA, EAI.SERVICE]) {
    const fake = answers(failure(code));
    const error = await assertRejects(
      () => resolveEndpoint(NAME, { lookup: fake.lookup, retries: Infinity }),
      ResolveError,
    );
    assertEquals([error.isPermanent, fake.count], [true, 1]);
  }
  const nothing = answers({ addresses: [] });
  await assertRejects(
    () => resolveEndpoint(NAME, { lookup: nothing.lookup }),
    ResolveError,
    "Neither IPv4 nor IPv6",
  );
});

Deno.test("waiting ends with the signal, and leaves no timer behind", async () => {
  const controller = new AbortController();
  const waiting = resolveEndpoint(NAME, {
    lookup: answers(failure(EAI.AGAIN)).lookup,
    signal: controller.signal,
    onRetry: () => controller.abort(new Error("enough")),
  });
  await assertRejects(() => waiting, Error, "enough");
});

Deno.test("WG_ENDPOINT_RESOLUTION_RETRIES is a number or infinity", () => {
  assertEquals(resolutionRetries(undefined), 15);
  assertEquals(resolutionRetries("infinity"), Infinity);
  assertEquals(resolutionRetries("0"), 0);
  assertEquals(resolutionRetries(""), 0); // as strtoul
  assertEquals(resolutionRetries("2147483647"), 2147483647);
  for (const text of ["-1", "x", "1x", "2147483648", "Infinity", "1.5"]) {
    assertThrows(() => resolutionRetries(text), SyntaxError, "infinity");
  }
});

Deno.test({
  name: "the system's resolver: addresses, services, errors",
  ignore: Deno.build.os !== "linux",
  async fn(): Promise<void> {
    const local = await lookupEndpoint("localhost", "7");
    assert("addresses" in local);
    const [{ address, port, scopeId }] = local.addresses;
    assertEquals([address.length === 4 || address.length === 16, port], [
      true,
      7,
    ]);
    assertEquals(scopeId, 0);
    const scoped = await lookupEndpoint("fe80::1%lo", "9");
    assert("addresses" in scoped);
    assertEquals(scoped.addresses[0].scopeId, 1);
    // No name: final, whatever DNS says.
    const none = await lookupEndpoint("a..b", "9");
    assert("error" in none);
    assertEquals(none.error, EAI.NONAME);
    assert(none.reason.length > 5);
    const service = await lookupEndpoint("192.0.2.1", "no-such-service");
    assert("error" in service);
    assertEquals(service.error, EAI.SERVICE);
    assertEquals(servicePort("no-such-service"), null);
    assertEquals(servicePort("53"), 53);
  },
});
