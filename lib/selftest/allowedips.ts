/**
 * Self-test of the allowed IPs, after the kernel's `selftest/allowedips.c`: a
 * fixed table, removal, depth, readout, and a random table against a plain list.
 *
 * @module
 */
import { AllowedIps } from "../allowedips.ts";
import { Arena, THREAD_CONTROL } from "../arena.ts";
import { bug } from "../assert.ts";
import { Grace } from "../epoch.ts";
import { formatCidr, parseCidr, parseIp } from "../ip.ts";
import { LinearList } from "./linear_list.ts";
import { SeededRandom } from "./random.ts";

/** Owner and prefix, in the order of insertion: a later owner takes a prefix over. */
const TABLE = `
a 192.0.2.0/24          b 192.0.2.4/32          c 192.0.0.0/16
d 198.51.100.64/27      c 198.51.100.65/27      e 0.0.0.0/0
g 203.0.112.0/20        h 203.0.113.128/25      a 10.0.0.0/9
h 10.1.0.0/16           c 10.1.1.16/28          d 10.1.1.20/30
b 10.1.1.20/31          f 10.128.0.0/9          g 172.16.0.0/12
b 172.16.9.255/28
d 2001:db8:6000:6b00::c02e:1ee/128              c 2001:db8:6000:6b00::/64
e ::/0                  f ::/0                  g 2001:db9::/32
h 2001:db9:4004:800:ffff::/64                   c 2001:db9:4004:800:5678::/96
a 2001:db9:4004:800:1234:5678:1234:5678/128     b 2001:db9:4004:806::1006/98
a fe80::/10             d fe80::1/127
`;

/** Address and owner. */
const LOOKUPS = `
192.0.2.20 a      192.0.2.4 b       192.0.2.5 a       192.0.200.182 c
198.51.100.68 c   198.51.100.96 e   198.51.100.63 e   191.255.255.255 e
203.0.113.1 g     203.0.113.129 h   203.0.127.255 g   203.0.128.0 e
10.2.0.0 a        10.1.255.255 h    10.1.1.31 c       10.1.1.23 d
10.1.1.21 b       10.1.1.32 h       10.200.1.1 f      11.0.0.0 e
172.31.255.255 g  172.16.9.240 b    172.32.0.0 e
2001:db8:6000:6b00::c02e:1ee d      2001:db8:6000:6b00::c02e:1ef c
2001:db8:6000:6b01:: f              2001:db9:4004:801:: g
2001:db9:4004:800:0:1:: h           2001:db9:4004:800:5678:: c
2001:db9:4004:800:5678:1:: h        2001:db9:4004:800:1234:5678:1234:5678 a
2001:db9:4004:800:1234:5678:1234:5679 h
2001:db9:4004:806:: b               2001:db9:4004:806:0:0:4000:0 g
2001:dba:: f      fe80:: d          fe80::2 a         fec0:: f
`;

const NODES = 4096;
const RANDOM_PREFIXES = 1_500;
const RANDOM_LOOKUPS = 1_500;
const RANDOM_PEERS = 16;

/** A table in an arena of its own. */
class Bench {
  readonly #arena = new Arena({
    peers: 256,
    allowedIpNodes: NODES,
    sessions: 1,
    txSlots: 1,
  });
  readonly grace = new Grace(this.#arena);
  readonly table = new AllowedIps(this.#arena, this.grace);
  readonly #address = this.#arena.work(THREAD_CONTROL);

  insert(prefix: string, peer: number): void {
    const parsed = parseCidr(prefix);
    bug(parsed !== null, `${prefix} is a prefix`);
    bug(
      this.table.insert(parsed.address, parsed.cidr, peer),
      `room for ${prefix}`,
    );
  }

  lookup(address: Uint8Array): number {
    this.#arena.u8.set(address, this.#address);
    return address.length === 4
      ? this.table.lookup4(this.#address)
      : this.table.lookup6(this.#address);
  }

  lookupText(text: string): number {
    const address = parseIp(text);
    bug(address !== null, `${text} is an address`);
    return this.lookup(address);
  }

  list(peer: number): string[] {
    const table = this.table;
    const bytes = new Uint8Array(16);
    const prefixes: string[] = [];
    for (let node = table.first(peer); node !== 0; node = table.next(node)) {
      const address = bytes.slice(0, table.prefixOf(node, bytes));
      prefixes.push(formatCidr({ address, cidr: table.cidrOf(node) }));
    }
    return prefixes;
  }

  /** Nothing is left in the tries, the lists and the pool. */
  expectEmpty(): void {
    while (this.grace.collect());
    bug(this.table.size === 0, "no prefix is left");
    bug(this.table.nodes === 0, "all nodes are back in the pool");
  }
}

/** Runs the self-test; throws if it fails. */
export function allowedIpsSelftest(): void {
  fixedTable();
  removal();
  depth();
  readout();
  randomTable();
}

function fixedTable(): void {
  const bench = new Bench();
  const peers = "abcdefgh";
  for (const [peer, prefix] of pairs(TABLE)) {
    bench.insert(prefix, peers.indexOf(peer) + 1);
  }
  for (const [address, peer] of pairs(LOOKUPS)) {
    const found = peers[bench.lookupText(address) - 1];
    bug(found === peer, `${address} belongs to ${peer}, not to ${found}`);
  }
  for (let peer = 1; peer <= peers.length; peer++) {
    bench.table.removeByPeer(peer);
    for (const [address] of pairs(LOOKUPS)) {
      bug(bench.lookupText(address) !== peer, `${address} has a new owner`);
    }
  }
  bench.expectEmpty();
}

function removal(): void {
  const bench = new Bench();
  const nested = ["1.0.0.0/8", "1.2.0.0/16", "1.2.3.0/24", "1.2.3.4/32"];
  for (const prefix of nested) bench.insert(prefix, 1);
  bench.insert("0.0.0.0/0", 2);
  bug(bench.lookupText("1.2.3.4") === 1, "nested prefixes belong to peer 1");
  bug(bench.table.removeByPeer(1) === nested.length, "all of them go");
  for (const address of ["1.0.0.1", "1.2.0.1", "1.2.3.1", "1.2.3.4"]) {
    bug(bench.lookupText(address) === 2, `${address} belongs to peer 2`);
  }
  const [all, net] = [new Uint8Array(4), new Uint8Array([1, 2, 3, 4])];
  bug(!bench.table.remove(all, 0, 1), "a prefix of another peer stays");
  bug(!bench.table.remove(all, 1, 2), "as does one of another length");
  bug(!bench.table.remove(net, 32, 2), "one that is not there cannot go");
  bug(bench.table.remove(net, 0, 2), "host bits do not matter");
  bug(bench.lookupText("1.2.3.4") === 0, "nobody owns it now");
  bench.expectEmpty();
}

/** 128 hosts, each one bit from the same address: a trie as deep as can be. */
function depth(): void {
  const bench = new Bench();
  for (let bit = 0; bit < 128; bit++) {
    bug(bench.table.insert(host(bit), 128, bit + 1), "room for a host");
  }
  for (let bit = 0; bit < 128; bit++) {
    bug(bench.lookup(host(bit)) === bit + 1, `host ${bit} is found`);
  }
  bug(
    bench.lookup(new Uint8Array(16).fill(255)) === 0,
    "no host in the middle",
  );
  for (let bit = 0; bit < 128; bit++) bench.table.removeByPeer(bit + 1);
  bench.expectEmpty();
}

function readout(): void {
  const bench = new Bench();
  const inserted = [
    "192.95.5.93/27",
    "10.1.0.20/29",
    "2607:5300:6006:b00::c05f:543/128",
    "10.1.0.20/29",
    "abcd:ef00:1234:5678:9abc:def0:1234:5678/65",
    "192.95.5.64/26",
    "192.95.5.93/27",
    "0.0.0.0/0",
  ];
  for (const prefix of inserted) bench.insert(prefix, 3);
  bench.insert("192.95.5.64/26", 4);
  bug(
    bench.list(3).join(" ") ===
      "2607:5300:6006:b00::c05f:543/128 10.1.0.16/29 " +
        "abcd:ef00:1234:5678:8000::/65 192.95.5.64/27 0.0.0.0/0",
    "the list is masked, in the order of insertion, without what moved",
  );
  bug(bench.list(4).join() === "192.95.5.64/26", "what moved is the other's");
}

function randomTable(): void {
  const bench = new Bench();
  const list = new LinearList();
  const random = new SeededRandom(0xa110);
  for (let i = 0; i < RANDOM_PREFIXES; i++) {
    const address = randomAddress(random);
    const cidr = random.below(8 * address.length + 1);
    const peer = 1 + random.below(RANDOM_PEERS);
    bug(bench.table.insert(address, cidr, peer), "room for a prefix");
    list.insert(address, cidr, peer);
  }
  for (let peer = 0; peer <= RANDOM_PEERS; peer++) {
    bug(
      bench.table.removeByPeer(peer + 1) === list.removeByPeer(peer + 1),
      "a peer has as many prefixes",
    );
    bug(bench.table.size === list.prefixes.length, "as many prefixes are left");
    for (let i = 0; i < RANDOM_LOOKUPS / RANDOM_PEERS; i++) {
      const address = randomAddress(random);
      bug(
        bench.lookup(address) === list.lookup(address),
        `${address} has the same owner in both`,
      );
    }
  }
  bench.expectEmpty();
}

/** Addresses with few bits set, so that prefixes nest and meet. */
function randomAddress(random: SeededRandom): Uint8Array {
  const address = new Uint8Array(random.below(2) === 0 ? 4 : 16);
  for (let i = random.below(6); i > 0; i--) {
    const bit = random.below(8 * address.length);
    address[bit >> 3] |= 128 >> (bit & 7);
  }
  return address;
}

/** The address of ones, but for one bit. */
function host(bit: number): Uint8Array {
  const address = new Uint8Array(16).fill(255);
  address[bit >> 3] ^= 128 >> (bit & 7);
  return address;
}

function* pairs(text: string): Generator<[string, string]> {
  const words = text.trim().split(/\s+/);
  for (let i = 0; i < words.length; i += 2) yield [words[i], words[i + 1]];
}
