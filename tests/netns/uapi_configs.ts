/** Configuration files and `wg set` commands at random, the same for each seed. */
import { encodeKey } from "../../lib/crypto/bytes.ts";
import { clamp, publicKey } from "../../lib/crypto/x25519.ts";
import { randomSource } from "../config_helpers.ts";

const KEYS = 6;
const PORTS = 65_536;
/** Ports that are asked for: outside the range of those given at random. */
const FIRST_PORT = 20_000;
const LAST_PORT = 29_999;

/** What a {@linkcode ConfigSource} makes besides the usual. */
export interface ConfigSourceOptions {
  /** Now and then, peers that are the device itself, and peers given twice. */
  readonly odd?: boolean;
}

/** Makes configurations. */
export class ConfigSource {
  readonly random: (below: number) => number;
  readonly #publicKeys: string[];
  readonly #privateKeys: string[];
  readonly #isOdd: boolean;

  constructor(seed: number, { odd = false }: ConfigSourceOptions = {}) {
    this.random = randomSource(seed);
    this.#isOdd = odd;
    this.#publicKeys = Array.from({ length: KEYS }, () => this.#key());
    this.#privateKeys = [];
    if (!odd) return;
    for (const at of [0, 1]) {
      const key = clamp(this.#bytes());
      this.#privateKeys.push(encodeKey(key));
      this.#publicKeys[at] = encodeKey(publicKey(key));
    }
  }

  #privateKey(): string {
    return this.#isOdd && this.random(3) === 0
      ? this.#one(this.#privateKeys)
      : this.#key();
  }

  /** Some of the peers, and some of them twice if `repeated`. */
  #peers(oneIn: number, repeated: boolean): string[] {
    const keys = this.#publicKeys.filter(() => this.random(oneIn) === 0);
    if (!this.#isOdd || !repeated) return keys;
    return keys.flatMap((key) => this.random(5) === 0 ? [key, key] : [key]);
  }

  #bytes(): Uint8Array {
    return Uint8Array.from({ length: 32 }, () => this.random(256));
  }

  #key(): string {
    return encodeKey(this.#bytes());
  }

  #one<T>(choices: readonly T[]): T {
    return choices[this.random(choices.length)];
  }

  #often(): boolean {
    return this.random(3) > 0;
  }

  #address(family: 4 | 6): string {
    // Few different ones, so that they overlap and move between peers.
    return family === 4
      ? `10.${this.random(2)}.${this.random(3)}.${this.random(4)}`
      : `fd00:${this.random(2)}::${this.random(3)}:${this.random(4)}`;
  }

  #allowedIps(): string {
    return Array.from({ length: this.random(5) }, () => {
      const family = this.#one([4, 6] as const);
      const longest = family === 4 ? 32 : 128;
      const size = this.#one([0, 1, 8, 15, 24, longest, longest]);
      const address = this.#address(family);
      return this.random(4) === 0 ? address : `${address}/${size}`;
    }).join(", ");
  }

  #endpoint(): string {
    const port = 1 + this.random(PORTS - 1);
    return this.random(2) === 0
      ? `${this.#address(4)}:${port}`
      : `[${this.#address(6)}]:${port}`;
  }

  #keepalive(): string {
    return this.#one(["off", "0", "1", "25", "65535"]);
  }

  #listenPort(): string {
    if (this.random(4) === 0) return "0";
    return String(FIRST_PORT + this.random(LAST_PORT - FIRST_PORT));
  }

  #mark(): string {
    return this.#one(["off", "0", "51820", "0xca6c", "4294967295"]);
  }

  /** A file for setconf, addconf and, unless peers may repeat, syncconf. */
  file(repeated = false): string {
    const lines = ["[Interface]"];
    const setting = (name: string, value: () => string): void => {
      if (this.#often()) lines.push(`${name} = ${value()}`);
    };
    setting("PrivateKey", () => this.#privateKey());
    setting("ListenPort", () => this.#listenPort());
    setting("FwMark", () => this.#mark());
    const keys = this.#peers(2, repeated);
    for (const key of keys) {
      lines.push("", "[Peer]", `PublicKey = ${key}`);
      setting("PresharedKey", () => this.#key());
      setting("Endpoint", () => this.#endpoint());
      setting("AllowedIPs", () => this.#allowedIps());
      setting("PersistentKeepalive", () => this.#keepalive());
    }
    return lines.join("\n") + "\n";
  }

  /** Arguments of `wg set IF`; `secret` makes a file of a key. */
  set(secret: (key: string) => string): string[] {
    const args: string[] = [];
    const setting = (name: string, value: () => string): void => {
      if (this.random(3) === 0) args.push(name, value());
    };
    const secretOrNone = (key = this.#key()): string =>
      this.random(3) === 0 ? "/dev/null" : secret(key);
    setting("private-key", () => secretOrNone(this.#privateKey()));
    setting("listen-port", () => this.#listenPort());
    setting("fwmark", () => this.#mark());
    const keys = this.#peers(3, true);
    for (const key of keys) {
      args.push("peer", key);
      if (this.random(4) === 0) {
        args.push("remove");
        continue;
      }
      setting("preshared-key", () => secretOrNone());
      setting("endpoint", () => this.#endpoint());
      setting("allowed-ips", () => this.#allowedIps().replaceAll(" ", ""));
      setting("persistent-keepalive", () => this.#keepalive());
    }
    return args;
  }
}

function normalPort(text: string): string {
  const port = Number(text);
  return port >= FIRST_PORT && port <= LAST_PORT ? text : "random";
}

/** `wg show IF dump` with its peers and their allowed IPs in one order. */
export function normalDump(text: string): string[] {
  const [device, ...peers] = text.trimEnd().split("\n");
  const [privateKey, publicKey, port, mark] = device.split("\t");
  const inOrder = peers.map((line) => {
    const words = line.split("\t");
    words[3] = words[3].split(",").sort().join(",");
    return words.join("\t");
  });
  return [
    [privateKey, publicKey, normalPort(port), mark].join("\t"),
    ...inOrder.sort(),
  ];
}

/** `wg showconf IF` likewise. */
export function normalConfig(text: string): string[] {
  const sections = text.trimEnd().split("\n\n").map((section) =>
    section.split("\n").map((line) => {
      const [name, value] = line.split(" = ");
      if (name === "ListenPort") return `${name} = ${normalPort(value)}`;
      if (name !== "AllowedIPs") return line;
      return `${name} = ${value.split(", ").sort().join(", ")}`;
    }).join("\n")
  );
  return [sections[0], ...sections.slice(1).sort()];
}
