/**
 * lib/ip: addresses, prefixes and endpoints, against glibc's inet_pton and
 * inet_ntop (through python3, skipped where that is missing).
 */
import { assert, assertEquals } from "@std/assert";
import {
  formatCidr,
  formatEndpoint,
  formatIp,
  formatSocketAddress,
  hasHostBits,
  maskAddress,
  parseCidr,
  parseEndpoint,
  parseIp,
  parseSocketAddress,
} from "../lib/ip.ts";
import { randomSource } from "./config_helpers.ts";

Deno.test("addresses print as inet_ntop prints them", () => {
  const cases: Record<string, string> = {
    "0.0.0.0": "0.0.0.0",
    "255.1.20.0": "255.1.20.0",
    "::": "::",
    "::1": "::1",
    "1::": "1::",
    "2001:DB8:0:0:0:0:0:1": "2001:db8::1",
    "2001:db8:0:1:1:1:1:1": "2001:db8:0:1:1:1:1:1",
    "2001:0:0:1:0:0:0:1": "2001:0:0:1::1",
    "1:0:0:2:0:0:3:4": "1::2:0:0:3:4",
    "::ffff:1.2.3.4": "::ffff:1.2.3.4",
    "::ffff:0:1": "::ffff:0.0.0.1",
    "::1.2.3.4": "::1.2.3.4",
    "::1:0": "::0.1.0.0",
    "64:ff9b::192.0.2.33": "64:ff9b::c000:221",
    "1:2:3:4:5:6:7::": "1:2:3:4:5:6:7:0",
  };
  for (const [text, expected] of Object.entries(cases)) {
    const address = parseIp(text);
    assert(address !== null, `${text} was refused`);
    assertEquals(formatIp(address), expected);
  }
});

Deno.test("what inet_pton refuses is refused", () => {
  const bad = [
    ..." |1.2.3|1.2.3.4.5|1.2.3.256|01.2.3.4|1.2.3.4 |1..2.3|.1.2.3|1.2.3.|+1.2.3.4"
      .split("|"),
    ...":|:::|1:|:1|1::2::3|12345::|1:2:3:4:5:6:7|1:2:3:4:5:6:7:8:9|1:2:3:4:5:6:7:8::"
      .split("|"),
    ..."::1.2.3|1:2:3:4:5:6:7:1.2.3.4|::1.2.3.4:5|g::|::1%eth0|1:::2|::0x1"
      .split("|"),
  ];
  for (const text of ["", ...bad]) {
    assertEquals(parseIp(text), null, `"${text}" was accepted`);
  }
});

Deno.test("parsing and printing agree with glibc on random addresses", async (t) => {
  const random = randomSource(7);
  const texts: string[] = [];
  for (let i = 0; i < 4000; i++) {
    if (i % 4 === 0) {
      // Random characters of the alphabet: mostly refused.
      const length = random(12);
      const pick = (): string => "0123afF:.:"[random(10)];
      texts.push(Array.from({ length }, pick).join(""));
      continue;
    }
    const groups = Array.from(
      { length: i % 16 === 1 ? 7 : 8 },
      () => random(2) ? "0" : random(0x10000).toString(16),
    );
    if (i % 3 === 0) groups.splice(random(8), random(5), "");
    if (i % 5 === 0) {
      groups.splice(6, 2, `${random(300)}.1.${random(256)}.0`);
    }
    texts.push(groups.join(":"));
  }
  const script = `
import socket, sys
for line in sys.stdin:
    text = line[:-1]
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    try: print(socket.inet_ntop(family, socket.inet_pton(family, text)))
    except OSError: print("-")
`;
  let output: Deno.CommandOutput;
  try {
    const python = new Deno.Command("python3", {
      args: ["-c", script],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    const writer = python.stdin.getWriter();
    await writer.write(new TextEncoder().encode(texts.join("\n") + "\n"));
    await writer.close();
    output = await python.output();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    await t.step({ name: "no python3 here", ignore: true, fn: () => {} });
    return;
  }
  const expected = new TextDecoder().decode(output.stdout).split("\n");
  let accepted = 0;
  texts.forEach((text, i) => {
    const address = parseIp(text);
    assertEquals(address === null ? "-" : formatIp(address), expected[i], text);
    if (address !== null) accepted++;
  });
  assert(accepted > 500 && accepted < texts.length - 500, `${accepted}`);
});

Deno.test("a prefix has a length, by default that of the address", () => {
  const print = (text: string): string | null => {
    const cidr = parseCidr(text);
    return cidr && formatCidr(cidr);
  };
  assertEquals(print("10.0.0.0/8"), "10.0.0.0/8");
  assertEquals(print("10.0.0.1"), "10.0.0.1/32");
  assertEquals(print("fd00::1"), "fd00::1/128");
  assertEquals(print("::/0"), "::/0");
  for (
    const bad of ["10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "/8"]
  ) assertEquals(print(bad), null, bad);
});

Deno.test("masking clears exactly the host bits", () => {
  for (
    const [text, masked] of [
      ["10.1.2.3/8", "10.0.0.0/8"],
      ["255.255.255.255/0", "0.0.0.0/0"],
      ["10.1.2.255/25", "10.1.2.128/25"],
      ["ffff:ffff::ffff/20", "ffff:f000::/20"],
    ]
  ) {
    const cidr = parseCidr(text);
    assert(cidr !== null && hasHostBits(cidr));
    maskAddress(cidr.address, cidr.cidr);
    assertEquals(formatCidr(cidr), masked);
    assert(!hasHostBits(cidr));
  }
  for (const text of ["10.0.0.0/8", "1.2.3.4/32", "::1/128", "0.0.0.0/0"]) {
    const cidr = parseCidr(text);
    assert(cidr !== null && !hasHostBits(cidr), text);
  }
});

Deno.test("endpoints are addresses or names, with a port", () => {
  const print = (text: string): string | null => {
    const endpoint = parseEndpoint(text);
    return endpoint && formatEndpoint(endpoint);
  };
  for (
    const good of [
      "192.0.2.1:51820",
      "[2001:db8::1]:1",
      "[fe80::1%eth0]:51820",
      "vpn.example.com:65535",
      "vpn.example.com.:51820",
      "my_host:1",
    ]
  ) assertEquals(print(good), good);
  assertEquals(print("[2001:DB8:0::1]:7"), "[2001:db8::1]:7");
  for (
    const bad of [
      "",
      "192.0.2.1",
      "192.0.2.1:",
      "192.0.2.1:0",
      "192.0.2.1:65536",
      "192.0.2.1:http",
      "192.0.2.256:1",
      "2001:db8::1:51820",
      "[2001:db8::1]51820",
      "[192.0.2.1]:1",
      "[fe80::1%]:1",
      "[::1]",
      "a..b:1",
      "-a b:1",
      ":1",
    ]
  ) assertEquals(print(bad), null, bad);
});

Deno.test("socket addresses are numeric and keep their scope", () => {
  for (const good of ["192.0.2.1:0", "[::1]:51820", "[fe80::1%3]:51820"]) {
    const parsed = parseSocketAddress(good);
    assert(parsed !== null, good);
    assertEquals(formatSocketAddress(parsed), good);
  }
  for (
    const bad of ["name:1", "[::1]", "::1:1", "192.0.2.1%a:1", "[1.2.3.4]:1"]
  ) {
    assertEquals(parseSocketAddress(bad), null, bad);
  }
});
