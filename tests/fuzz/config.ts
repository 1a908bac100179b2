/**
 * Fuzz target: configuration files in both formats. A file is read, or refused
 * with errors that say where and show no key; what was read is written and read
 * again to the same.
 *
 * @module
 */
import {
  type Config,
  ConfigErrors,
  type ConfigFormat,
  type formatConfig,
  type parseConfig,
} from "../../lib/config.ts";
import { decodeKey } from "../../lib/crypto/bytes.ts";
import type { Target } from "./engine.ts";
import { check } from "./memory.ts";

const LENGTH_MAX = 2048;

const WORDS = [
  "[Interface]\n",
  "[Peer]\n",
  "PrivateKey = ",
  "PublicKey = ",
  "PresharedKey=",
  "AllowedIPs = ",
  "Endpoint = ",
  "PersistentKeepalive = ",
  "ListenPort = ",
  "FwMark = ",
  "Address = ",
  "DNS = ",
  "MTU = ",
  "Table = ",
  "PreUp = ",
  "PostDown = ",
  "SaveConfig = ",
  "off",
  "auto",
  "true",
  "0x",
  "10.0.0.1/24",
  "fd00::1/64",
  "::ffff:1.2.3.4",
  "%eth0",
  "[::1]:51820",
  "example.com:51820",
  "/0",
  "/128",
  ", ",
  " # ",
  "=",
  "\n",
  "\r\n",
  "\t",
  "\u00a0",
  "\ufeff",
  "\0",
  "%i",
  "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
  "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=",
];

/** What is tested. */
export interface ConfigCode {
  readonly parseConfig: typeof parseConfig;
  readonly formatConfig: typeof formatConfig;
}

/** Fuzzes the configuration parser. */
export class ConfigTarget implements Target {
  readonly name = "config";
  readonly lengthMax = LENGTH_MAX;
  readonly words = WORDS.map((word) => new TextEncoder().encode(word));
  readonly #code: ConfigCode;
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });

  constructor(code: ConfigCode) {
    this.#code = code;
  }

  run(input: Uint8Array): string {
    const text = this.#decoder.decode(input);
    // One format an input, for twice as many inputs.
    const format = input.length % 2 === 0 ? "wg-quick" : "wg";
    return `${format} ${this.#one(text, format)}`;
  }

  #one(text: string, format: ConfigFormat): string {
    let parsed;
    try {
      parsed = this.#code.parseConfig(text, { file: "f", format });
    } catch (error) {
      // A file has errors, or the parser has one.
      if (!(error instanceof ConfigErrors)) throw error;
      return checkErrors(text, error);
    }
    for (const warning of parsed.warnings) checkNoKey(warning);
    this.#again(parsed, format);
    const { interface: device, peers, warnings } = parsed;
    return `ok ${Object.keys(device).length} ${Math.min(peers.length, 3)} ${
      warnings.map(outline).sort().join()
    }`;
  }

  /** What is written is read again to the same, and without a warning. */
  #again(parsed: Config, format: ConfigFormat): void {
    const written = this.#code.formatConfig(parsed);
    const again = this.#code.parseConfig(written, { file: "f", format });
    check(
      this.#code.formatConfig(again) === written &&
        summary(again) === summary(parsed),
      `${JSON.stringify(written)} is read to something else`,
    );
    for (const warning of again.warnings) {
      // Two sections of one peer stay two.
      check(warning.includes("also that of"), `it is warned: ${warning}`);
    }
  }
}

/** All of a configuration, as text; undefined is as absent. */
function summary({ interface: device, peers }: Config): string {
  return JSON.stringify([device, peers], (_, value) => {
    if (value instanceof Uint8Array) return [...value];
    if (value === null || typeof value !== "object" || Array.isArray(value)) {
      return value;
    }
    return Object.fromEntries(Object.entries(value).sort());
  });
}

function checkErrors(text: string, error: ConfigErrors): string {
  const lines = text.split("\n");
  check(error.errors.length > 0, "errors without an error");
  const seen = new Set<string>();
  for (const { line, column, message } of error.errors) {
    check(line >= 1 && line <= lines.length, `no line ${line}`);
    // A byte order mark is no column.
    const columns = lines[line - 1].length + 1;
    check(column >= 1 && column <= columns, `no column ${column} of ${line}`);
    check(!/[^\x20-\x7e…]/.test(message), `not printable: ${message}`);
    checkNoKey(message);
    if (seen.size < 2) seen.add(outline(message));
  }
  return [...seen].sort().join();
}

/** Throws when there is a whole key in a message. */
function checkNoKey(message: string): void {
  for (const [key] of message.matchAll(/[A-Za-z0-9+/]{43}=/g)) {
    check(decodeKey(key) === null, `a key is shown: ${message}`);
  }
}

/** A message without what stands in the file, and without what was expected. */
function outline(message: string): string {
  return message.split(";")[0].replace(/"[^]*"|[0-9a-f.:/]*[0-9][^ ]*/g, "");
}
