/**
 * Files of wg-quick(8) at random, the same for each seed: addresses, routes,
 * tables, name servers, hooks and peers as people write them, some of them
 * wrong.
 */
import { encodeKey } from "../../lib/crypto/bytes.ts";
import { clamp, publicKey } from "../../lib/crypto/x25519.ts";
import { randomSource } from "../config_helpers.ts";

/** Lines that both refuse, wherever they stand in their section. */
const WRONG_INTERFACE = [
  "Address = 10.0.0.300/24",
  "Address = 10.0.0.1/33",
  "Adress = 10.0.0.1/24",
  "MTU = 20",
  "MTU = many",
  "Table = no such table",
  "SaveConfig = yes",
  "FwMark = 0xfffffffff",
  "ListenPort = 65536x",
  "PostUp = echo %i; false",
  "PostUp = false | true",
  "PostUp = exit 3",
  "PrivateKey = short",
];
const WRONG_PEER = [
  "AllowedIPs = 10.0.0.0/33",
  "AllowedIPs = 10.0.0.0/8,, ::/0",
  "Endpoint = 1.2.3.4",
  "PersistentKeepalive = 65536",
  "PublicKey = short",
  "Nonsense = 1",
];

/** A file. */
export interface QuickFile {
  readonly text: string;
  /** Whether there is something wrong in it. */
  readonly isWrong: boolean;
  /** Whether it names a port: else any is taken. */
  readonly hasPort: boolean;
}

/** Makes files. */
export class QuickSource {
  readonly random: (below: number) => number;

  constructor(seed: number) {
    this.random = randomSource(seed);
  }

  #one<T>(choices: readonly T[]): T {
    return choices[this.random(choices.length)];
  }

  #some<T>(choices: readonly T[], oneIn: number): T[] {
    return choices.filter(() => this.random(oneIn) === 0);
  }

  #privateKey(): Uint8Array {
    return clamp(Uint8Array.from({ length: 32 }, () => this.random(256)));
  }

  /** `name = value` as people write it. */
  #line(name: string, value: string): string {
    const word = this.#one([name, name, name, name.toLowerCase()]);
    const sign = this.#one([" = ", " = ", "=", " =  "]);
    const end = this.#one(["", "", "", " # note", "\t"]);
    return `${this.#one(["", "", " "])}${word}${sign}${value}${end}`;
  }

  /** Without `&`, which the stock wg-quick does not save as it was. */
  #hooks(name: string): string[] {
    const n = this.random(90);
    const texts = [
      `echo ${name} %i`,
      `echo "${name}  %i %i"; echo ${n} | cat`,
      `if [ -n %i ]; then echo ${name} '%i'; fi`,
      `x=${n}; [[ $x -lt 100 ]] || false; echo {a,b}$x`,
    ];
    return this.#some(texts, 6).map((text) => `${name} = ${text}`);
  }

  /** The values in one line, or in some. */
  #list(name: string, values: readonly string[]): string[] {
    if (values.length === 0) return [];
    if (this.random(3) > 0) {
      return [this.#line(name, values.join(this.#one([", ", ","])))];
    }
    return values.map((value) => this.#line(name, value));
  }

  #interface(hasPort: boolean): string[] {
    const lines = [this.#line("PrivateKey", encodeKey(this.#privateKey()))];
    if (hasPort) {
      lines.push(this.#line("ListenPort", String(20_000 + this.random(999))));
    }
    const addresses = this.#some([
      "10.9.0.1/24",
      "10.9.0.7/24",
      "10.9.1.1/32",
      "10.10.0.1/16",
      "fd09::1/64",
      "fd09::2/128",
      "fd0b::1/48",
      "10.12.0.9/30",
    ], 3);
    lines.push(...this.#list("Address", addresses));
    const optional = (name: string, oneIn: number, values: string[]): void => {
      if (this.random(oneIn) === 0) {
        lines.push(this.#line(name, this.#one(values)));
      }
    };
    optional("MTU", 3, ["1280", "1420", "1500", "9000"]);
    optional("Table", 3, ["auto", "off", "1234", "main"]);
    optional("FwMark", 4, ["off", "0", "0x4d2", "51830"]);
    optional("SaveConfig", 4, ["true", "true", "false"]);
    const servers = this.#some(
      ["10.9.0.2", "fd09::53", "corp.example", "lan"],
      4,
    );
    lines.push(...this.#list("DNS", servers));
    for (const name of ["PreUp", "PostUp", "PreDown", "PostDown"]) {
      lines.push(...this.#hooks(name));
    }
    return lines;
  }

  #peer(network: string): string[] {
    const key = encodeKey(publicKey(this.#privateKey()));
    const lines = [this.#line("PublicKey", key)];
    if (this.random(3) === 0) {
      lines.push(this.#line("PresharedKey", encodeKey(this.#privateKey())));
    }
    const allowed = this.#some([
      "10.9.0.2/32",
      "10.9.0.64/26",
      "10.9.0.0/16",
      "10.200.0.0/16",
      "10.0.0.0/8",
      "10.201.1.1",
      "fd09::2/128",
      "fd09::/48",
      "fd0a::/16",
      "192.168.7.9/24",
    ], 4);
    if (this.random(6) === 0) allowed.push("0.0.0.0/0");
    if (this.random(6) === 0) allowed.push("::/0");
    if (this.random(8) === 0) allowed.push("128.0.0.0/1", "0.0.0.0/1");
    lines.push(...this.#list("AllowedIPs", allowed));
    if (this.random(3) > 0) {
      const endpoint = `${network}:${1 + this.random(9999)}`;
      lines.push(this.#line("Endpoint", endpoint));
    }
    if (this.random(3) === 0) {
      lines.push(
        this.#line("PersistentKeepalive", this.#one(["25", "0", "off"])),
      );
    }
    return lines;
  }

  /** A file. */
  file(): QuickFile {
    const hasPort = this.random(3) > 0;
    // All of one file's endpoints by routes of one MTU: of several, the stock
    // wg-quick takes the greatest.
    const network = this.#one(["10.77.0.9", "203.0.113.9", "[fd77::9]"]);
    const sections = [this.#interface(hasPort)];
    for (let n = this.random(4); n > 0; n--) sections.push(this.#peer(network));
    const isWrong = this.random(8) === 0;
    if (isWrong) {
      const at = this.random(sections.length);
      const line = this.#one(at === 0 ? WRONG_INTERFACE : WRONG_PEER);
      const lines = sections[at];
      lines.splice(this.random(lines.length + 1), 0, line);
    }
    const text = sections.map((lines, i) =>
      [i === 0 ? "[Interface]" : "[Peer]", ...lines, ""].join("\n")
    ).join(this.#one(["\n", "\n", "# next\n", ""]));
    return { text, isWrong, hasPort };
  }
}
