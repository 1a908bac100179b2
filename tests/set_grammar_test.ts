/** The grammar of `wgd set`; what stock wg makes of it is in tests/netns. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { CliError } from "../lib/commands/errors.ts";
import { parseSet, type SetRequest } from "../lib/commands/set_grammar.ts";
import { encodeKey } from "../lib/crypto/bytes.ts";
import { formatCidr, formatEndpoint } from "../lib/ip.ts";

const KEY = encodeKey(new Uint8Array(32).fill(7));
const OTHER = encodeKey(new Uint8Array(32).fill(8));

function parse(...args: string[]): SetRequest {
  return parseSet(args, (name) => name === "domain" ? 53 : null);
}

function allowedIps(...lists: string[]): [boolean | undefined, string[]] {
  const args = lists.flatMap((list) => ["allowed-ips", list]);
  const [peer] = parse("peer", KEY, ...args).peers;
  return [
    peer.replaceAllowedIps,
    peer.allowedIps.map((ip) => (ip.remove ? "-" : "") + formatCidr(ip)),
  ];
}

Deno.test("settings of the interface, then peers with theirs", () => {
  const request = parse(
    ...["listen-port", "1", "fwmark", "0xCA6C", "private-key", "/dev/null"],
    ...["peer", KEY, "endpoint", "vpn.example.com:51820", "remove"],
    ...["peer", OTHER, "preshared-key", "psk", "persistent-keepalive", "OFF"],
    ...["peer", KEY],
  );
  assertEquals(request.listenPort, 1);
  assertEquals(request.fwmark, 0xca6c);
  assertEquals(request.privateKeyFile, "/dev/null");
  const [first, second, third] = request.peers;
  assertEquals(request.peers.length, 3);
  assert(first.endpoint);
  assertEquals(formatEndpoint(first.endpoint), "vpn.example.com:51820");
  assertEquals([first.remove, second.remove], [true, undefined]);
  assertEquals(encodeKey(second.publicKey), OTHER);
  assertEquals(second.presharedKeyFile, "psk");
  assertEquals(second.persistentKeepalive, 0);
  assertEquals(third, { publicKey: third.publicKey, allowedIps: [] });
});

Deno.test("the last of a setting counts", () => {
  const request = parse(
    "listen-port",
    "1",
    "listen-port",
    "2",
    "fwmark",
    "off",
  );
  assertEquals([request.listenPort, request.fwmark], [2, 0]);
});

Deno.test("ports by the names of services", () => {
  assertEquals(parse("listen-port", "domain").listenPort, 53);
  const [peer] = parse("peer", KEY, "endpoint", "[fd00::1]:domain").peers;
  assertEquals(peer.endpoint, { host: "fd00::1", port: 53 });
});

Deno.test("allowed IPs replace, unless one has a sign", () => {
  assertEquals(allowedIps(""), [true, []]);
  assertEquals(allowedIps("10.0.0.0/8, ::/0"), [true, ["10.0.0.0/8", "::/0"]]);
  assertEquals(allowedIps("1.2.3.4,::1"), [true, ["1.2.3.4/32", "::1/128"]]);
  assertEquals(allowedIps("+10.0.0.0/8"), [false, ["10.0.0.0/8"]]);
  assertEquals(allowedIps("-10.0.0.0/8"), [false, ["-10.0.0.0/8"]]);
  assertEquals(allowedIps("10.0.0.0/8,-::/0,+1.2.3.4"), [
    false,
    ["10.0.0.0/8", "-::/0", "1.2.3.4/32"],
  ]);
  // Lists add up, and the last one says whether they replace.
  assertEquals(allowedIps("+1.2.3.4", "::1"), [true, [
    "1.2.3.4/32",
    "::1/128",
  ]]);
  assertEquals(allowedIps("1.2.3.4", "-::1"), [
    false,
    ["1.2.3.4/32", "-::1/128"],
  ]);
});

Deno.test("host bits are warned about", () => {
  assertEquals(parse("peer", KEY, "allowed-ips", "10.1.2.3/8").warnings, [
    "allowed-ips: 10.1.2.3/8 has bits set beyond its prefix",
  ]);
  assertEquals(parse("peer", KEY, "allowed-ips", "10.0.0.0/8").warnings, []);
});

Deno.test("what is wrong is told, with what was meant, and without keys", () => {
  for (
    const [args, text] of [
      [["listen-prot", "1"], "did you mean listen-port?"],
      [["xyzzy"], "expected listen-port, fwmark, private-key, peer"],
      [["listen-port"], "listen-port: no value given"],
      [["listen-port", "65536"], 'listen-port: "65536" is not a port'],
      [["listen-port", "-1"], 'listen-port: "-1" is not a port'],
      [["listen-port", ""], 'listen-port: "" is not a port'],
      [["listen-port", "nosuch"], 'listen-port: "nosuch" is not a port'],
      [["fwmark", "0x100000000"], "0 to 0xffffffff, or off"],
      [["fwmark", "0x"], "0 to 0xffffffff, or off"],
      [["fwmark", "ff"], "0 to 0xffffffff, or off"],
      [["endpoint", "1.2.3.4:5"], "belongs after the peer"],
      [["remove"], "belongs after the peer"],
      [["peer"], "peer: no value given"],
      [["peer", KEY, "fwmark", "1"], "fwmark belongs before the first peer"],
      [["peer", KEY, "Endpoint", "1.2.3.4:5"], "did you mean endpoint?"],
      [["peer", KEY, "endpoint", "1.2.3.4"], "is not name:port"],
      [["peer", KEY, "endpoint", ":5"], "is not name:port"],
      [["peer", KEY, "endpoint", ""], "is not name:port"],
      [["peer", KEY, "endpoint", "a:nosuch"], "is not name:port"],
      [["peer", KEY, "persistent-keepalive", "65536"], "0 to 65535, or off"],
      [["peer", KEY, "persistent-keepalive", "-1"], "0 to 65535, or off"],
      [["peer", KEY, "allowed-ips", "10.0.0.0/33"], "with a prefix length"],
      [["peer", KEY, "allowed-ips", "1.2.3.4,"], "with a prefix length"],
      [["peer", KEY, "allowed-ips", "--1.2.3.4"], "with a prefix length"],
      [["peer", KEY, "allowed-ips", "+"], "with a prefix length"],
      [["peer", KEY, "preshared-key"], "preshared-key: no value given"],
      [["toString", "1"], "invalid argument"],
    ] as const
  ) {
    assertThrows(() => parse(...args), CliError, text);
  }
  for (const args of [["peer", KEY.slice(1)], [KEY], ["listen-port", KEY]]) {
    const error = assertThrows(() => parse(...args), CliError);
    assert(!error.message.includes(KEY.slice(5, 20)), error.message);
    assertEquals(error.exitCode, 1);
  }
});
