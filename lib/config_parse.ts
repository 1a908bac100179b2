/**
 * The parser of configuration files. It reads them as wg(8) and wg-quick(8) do
 * (reference §9.1, §9.3): comments from `#` on, names in any letter case, all
 * white space dropped from wg's own keys, `#` kept in hooks, keys of wg-quick
 * only below a header that is `[Interface]` without white space in it. It reads
 * on after an error, so that all errors of a file are told at once.
 *
 * What it takes, `wg setconf` takes, once the keys of wg-quick are out. Some
 * things are refused that wg takes, as what they mean is not what was meant:
 * port numbers above 65535 (modulo 65536), endpoints with port 0, IPv6 endpoints
 * without brackets, and what inet_aton makes of `1.2.3` and `0x7f.1`. Pure.
 *
 * @module
 */
import {
  ConfigError,
  ConfigErrors,
  EXPECTED_KEY,
  quote,
} from "./config_error.ts";
import {
  compact,
  INTERFACE_KEYS,
  lowerCase,
  PEER_KEYS,
  trimmedRange,
} from "./config_keys.ts";
import type { Field, KeySpec, Report, ServicePort } from "./config_keys.ts";
import { encodeKey } from "./crypto/bytes.ts";
import { nearest } from "./suggest.ts";
import type {
  ConfigFormat,
  InterfaceConfig,
  ParsedConfig,
  PeerConfig,
} from "./config.ts";

/** Options of {@linkcode parseConfig}. */
export interface ParseConfigOptions {
  /** Name of the file, for messages; default `configuration`. */
  file?: string;
  /** Which keys are allowed; default `wg-quick`. */
  format?: ConfigFormat;
  /** Looks up names of services that stand for ports; by default none is. */
  servicePort?: ServicePort;
}

const BYTE_ORDER_MARK = "\ufeff";
const SECTION_HEADERS = ["[Interface]", "[Peer]"];

/** A peer whose section is still being read. */
interface PeerDraft {
  readonly kind: "peer";
  readonly peer: Partial<PeerConfig> & Pick<PeerConfig, "allowedIps">;
  readonly line: number;
  readonly seen: Set<string>;
}

type Section =
  | { readonly kind: "none" | "unknown" }
  | {
    readonly kind: "interface";
    readonly seen: Set<string>;
    /** Whether wg-quick sees that it is this section. */
    readonly quick: boolean;
  }
  | PeerDraft;

type KeyName = Pick<KeySpec<never>, "name" | "quick">;

interface Position {
  readonly line: number;
  readonly column: number;
}

class Parser {
  readonly errors: ConfigError[] = [];
  readonly warnings: string[] = [];
  readonly #file: string;
  readonly #format: ConfigFormat;
  readonly #servicePort: ServicePort;
  readonly #interface: InterfaceConfig = {
    addresses: [],
    dns: [],
    preUp: [],
    postUp: [],
    preDown: [],
    postDown: [],
  };
  readonly #interfaceSeen = new Set<string>();
  readonly #drafts: PeerDraft[] = [];
  #section: Section = { kind: "none" };

  constructor(
    { file = "configuration", format = "wg-quick", servicePort }:
      ParseConfigOptions,
  ) {
    this.#file = file;
    this.#format = format;
    this.#servicePort = servicePort ?? ((): null => null);
  }

  /** Complains about what wg takes for a part of the first line. */
  byteOrderMark(): void {
    this.#fail({ line: 1, column: 1 }, {
      problem: "a byte order mark, which wg does not know",
      expected: "a file saved as UTF-8 without it",
    });
  }

  line(text: string, line: number): void {
    const hash = text.indexOf("#");
    const length = hash < 0 ? text.length : hash;
    const [start, end] = trimmedRange(text, 0, length);
    if (start === end) return;
    const at = { line, column: start + 1 };
    if (text[start] === "[") {
      this.#header(text.slice(start, end), at);
      return;
    }
    const equals = text.slice(0, length).indexOf("=");
    if (equals < 0) {
      this.#fail(at, {
        problem: "a line that is neither a section nor a value",
        expected: "Key = value",
      });
      return;
    }
    const [, nameEnd] = trimmedRange(text, start, equals);
    const name = text.slice(start, nameEnd);
    const [valueStart, valueEnd] = trimmedRange(text, equals + 1, length);
    const [, fullEnd] = trimmedRange(text, valueStart, text.length);
    this.#field(name, {
      key: name,
      line,
      nameColumn: start + 1,
      column: valueStart + 1,
      value: text.slice(valueStart, valueEnd),
      valueWithComment: text.slice(valueStart, fullEnd),
    });
  }

  finish(): ParsedConfig {
    const peers: PeerConfig[] = [];
    const lineOfKey = new Map<string, number>();
    for (const { peer, line, seen } of this.#drafts) {
      const { publicKey } = peer;
      if (publicKey === undefined) {
        if (seen.has("PublicKey")) continue; // a bad one, complained about
        this.#fail({ line, column: 1 }, {
          key: "Peer",
          problem: "no PublicKey in this section",
          expected: `PublicKey = ${EXPECTED_KEY}`,
        });
        continue;
      }
      const name = encodeKey(publicKey);
      const earlier = lineOfKey.get(name);
      if (earlier !== undefined) {
        this.#warn(
          { line, column: 1 },
          "Peer",
          `PublicKey is also that of the peer of line ${earlier}; ` +
            "this section replaces its values",
        );
      }
      lineOfKey.set(name, line);
      peers.push({ ...peer, publicKey });
    }
    if (this.errors.length > 0) {
      throw new ConfigErrors(
        this.errors.sort((a, b) => a.line - b.line || a.column - b.column),
      );
    }
    return { interface: this.#interface, peers, warnings: this.warnings };
  }

  #header(text: string, at: Position): void {
    const header = compact(text);
    switch (lowerCase(header)) {
      case "[interface]":
        this.#section = {
          kind: "interface",
          seen: this.#interfaceSeen,
          quick: text === header,
        };
        return;
      case "[peer]": {
        this.#section = {
          kind: "peer",
          peer: { allowedIps: [] },
          line: at.line,
          seen: new Set(),
        };
        this.#drafts.push(this.#section);
        return;
      }
    }
    this.#section = { kind: "unknown" };
    const guess = nearest(header, SECTION_HEADERS);
    this.#fail(at, {
      problem: `${quote(header)} is not a section`,
      text: header,
      expected: "[Interface] or [Peer]" +
        (guess ? ` (did you mean ${guess}?)` : ""),
    });
  }

  #field(name: string, field: Field): void {
    const section = this.#section;
    const at = { line: field.line, column: field.nameColumn };
    switch (section.kind) {
      case "interface": {
        const spec = this.#lookUp(INTERFACE_KEYS, name);
        if (spec?.quick && !section.quick) {
          this.#fail(at, {
            key: spec.name,
            problem: "wg-quick does not see this section",
            expected: "no white space in its header [Interface]",
          });
          return;
        }
        if (spec) return this.#read(spec, field, section, this.#interface);
        break;
      }
      case "peer": {
        const spec = this.#lookUp(PEER_KEYS, name);
        if (spec) return this.#read(spec, field, section, section.peer);
        break;
      }
      case "none":
        this.#fail(at, {
          problem: "a value before the first section",
          expected: "[Interface] or [Peer] above it",
        });
        return;
      case "unknown":
        return; // its header has been complained about
    }
    this.#unknownKey(name, at, section.kind === "peer");
  }

  #read<T>(
    spec: KeySpec<T>,
    field: Field,
    section: { seen: Set<string> },
    into: T,
  ): void {
    if (section.seen.has(spec.name) && !spec.repeats) {
      const at = { line: field.line, column: field.nameColumn };
      this.#warn(at, spec.name, "given more than once; the last one counts");
    }
    section.seen.add(spec.name);
    const report: Report = {
      fail: (problem, expected, text = "", offset = 0) =>
        this.#fail({ line: field.line, column: field.column + offset }, {
          key: spec.name,
          problem,
          expected,
          text,
        }),
      warn: (message, offset = 0) =>
        this.#warn(
          { line: field.line, column: field.column + offset },
          spec.name,
          message,
        ),
      servicePort: this.#servicePort,
    };
    spec.read(field, into, report);
  }

  /** Finds a key: wg drops white space inside of names, wg-quick does not. */
  #lookUp<T>(
    specs: readonly KeySpec<T>[],
    name: string,
  ): KeySpec<T> | undefined {
    const asWg = lowerCase(compact(name));
    const asQuick = lowerCase(name);
    return specs.find((spec) =>
      spec.quick
        ? this.#format === "wg-quick" && lowerCase(spec.name) === asQuick
        : lowerCase(spec.name) === asWg
    );
  }

  #unknownKey(name: string, at: Position, inPeer: boolean): void {
    const own: readonly KeyName[] = inPeer ? PEER_KEYS : INTERFACE_KEYS;
    const other: readonly KeyName[] = inPeer ? INTERFACE_KEYS : PEER_KEYS;
    const [ownHeader, otherHeader] = inPeer
      ? ["[Peer]", "[Interface]"]
      : ["[Interface]", "[Peer]"];
    const allowed = (keys: readonly KeyName[]): string[] =>
      keys.filter((key) => !key.quick || this.#format === "wg-quick")
        .map((key) => key.name);
    const isNamed = (key: string): boolean =>
      lowerCase(key) === lowerCase(compact(name));

    if (allowed(other).some(isNamed)) {
      this.#fail(at, {
        problem: `${quote(name)} does not belong in ${ownHeader}`,
        text: name,
        expected: `it in a section ${otherHeader}`,
      });
      return;
    }
    // What is no name may be a secret pasted in the wrong place.
    const isWord = /^[a-zA-Z_ -]{1,24}$/.test(name);
    const guess = isWord ? nearest(name, allowed(own)) : undefined;
    const onlyQuick = own.some((key) => isNamed(key.name));
    this.#fail(at, {
      problem: `${isWord ? quote(name) : "this"} is not a key of ` +
        (onlyQuick ? "wg, only of wg-quick" : ownHeader),
      text: isWord ? name : "",
      expected: `one of ${allowed(own).join(", ")}` +
        (guess ? ` (did you mean ${guess}?)` : ""),
    });
  }

  #fail(
    at: Position,
    what: { key?: string; problem: string; text?: string; expected: string },
  ): void {
    this.errors.push(
      new ConfigError({ file: this.#file, key: "", text: "", ...at, ...what }),
    );
  }

  #warn(
    at: Position,
    key: string,
    message: string,
  ): void {
    this.warnings.push(
      `${this.#file}:${at.line}:${at.column}: ${key}: ${message}`,
    );
  }
}

/**
 * Parses a configuration file.
 *
 * @throws {ConfigErrors} all errors of the file, if it has any
 */
export function parseConfig(
  text: string,
  options: ParseConfigOptions = {},
): ParsedConfig {
  const parser = new Parser(options);
  const hasMark = text.startsWith(BYTE_ORDER_MARK);
  if (hasMark) parser.byteOrderMark();
  const body = hasMark ? text.slice(1) : text;
  body.split("\n").forEach((line, i) => parser.line(line, i + 1));
  return parser.finish();
}
