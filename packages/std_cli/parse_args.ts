/**
 * Stand-in for `parseArgs` of `@std/cli`, over `node:util`. Where JSR cannot
 * be reached, `links` in deno.json points `@std/cli` here. Option names and
 * meaning are those of the real package for the options below, so that it
 * drops in without a change; options that wgd does not use are left out.
 *
 * @module
 */
import { parseArgs as nodeParseArgs } from "node:util";

/** Options of {@linkcode parseArgs}: a subset of the real package's. */
export interface ParseOptions {
  /** Flags that take no value. */
  boolean?: readonly string[];
  /** Flags that take a value; `"_"` keeps numeric positionals as strings. */
  string?: readonly string[];
  /** Other names of a flag. */
  alias?: Readonly<Record<string, string | readonly string[]>>;
  /** Values of flags that were not given. */
  default?: Readonly<Record<string, unknown>>;
  /** Flags that may repeat; their values are gathered in an array. */
  collect?: readonly string[];
  /** Stop at the first positional: all that follows it is left in `_`. */
  stopEarly?: boolean;
  /**
   * Called for each argument that no option declares (for positionals without
   * `key`); what it answers `false` to is left out of the result.
   */
  unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}

/** What {@linkcode parseArgs} returns: positionals in `_`, flags by name. */
export interface Args {
  /** Positional arguments. */
  _: (string | number)[];
  // deno-lint-ignore no-explicit-any
  [flag: string]: any;
}

function names(alias: string | readonly string[]): readonly string[] {
  return typeof alias === "string" ? [alias] : alias;
}

function looksNumeric(text: string): boolean {
  return /^0x[0-9a-f]+$/i.test(text) ||
    /^[-+]?(?:\d+(?:\.\d*)?|\.\d+)(e[-+]?\d+)?$/.test(text);
}

/** Parses command-line arguments into flags and positionals. */
export function parseArgs(
  args: readonly string[],
  options: ParseOptions = {},
): Args {
  const strings = new Set(options.string);
  const booleans = new Set(options.boolean);
  const collect = new Set(options.collect);
  const groups = new Map<string, readonly string[]>();
  for (const [name, alias] of Object.entries(options.alias ?? {})) {
    const group = [name, ...names(alias)];
    for (const member of group) groups.set(member, group);
  }
  const sameFlag = (name: string): readonly string[] =>
    groups.get(name) ?? [name];
  const isIn = (set: Set<string>, name: string): boolean =>
    sameFlag(name).some((member) => set.has(member));

  const config: Record<
    string,
    { type: "string" | "boolean"; short?: string }
  > = {};
  for (const name of [...strings, ...booleans, ...groups.keys(), ...collect]) {
    if (name === "_" || name.length === 1) continue;
    const short = sameFlag(name).find((member) => member.length === 1);
    config[name] = {
      type: isIn(booleans, name) ? "boolean" : "string",
      ...(short === undefined ? {} : { short }),
    };
  }
  const { tokens } = nodeParseArgs({
    args: [...args],
    options: config,
    strict: false,
    allowPositionals: true,
    tokens: true,
  });

  const result: Args = { _: [] };
  const addPositional = (text: string): void => {
    if (options.unknown?.(text) === false) return;
    const asNumber = !strings.has("_") && looksNumeric(text);
    result._.push(asNumber ? Number(text) : text);
  };
  const setFlag = (name: string, value: unknown): void => {
    for (const member of sameFlag(name)) {
      if (isIn(collect, member)) {
        const values: unknown[] = Array.isArray(result[member])
          ? result[member]
          : [];
        result[member] = [...values, value];
      } else result[member] = value;
    }
  };

  for (const token of tokens) {
    if (token.kind === "option-terminator") {
      result._.push(...args.slice(token.index + 1));
      break;
    }
    if (token.kind === "positional") {
      if (options.stopEarly) {
        result._.push(...args.slice(token.index));
        break;
      }
      addPositional(token.value);
      continue;
    }
    const known = sameFlag(token.name).some((member) => member in config);
    const takesValue = isIn(strings, token.name);
    const value = takesValue
      ? token.value ?? ""
      : token.value === undefined
      ? true
      : token.value !== "false";
    if (
      !known && options.unknown?.(token.rawName, token.name, value) === false
    ) continue;
    setFlag(token.name, value);
  }

  for (const name of booleans) {
    if (result[name] === undefined) setFlag(name, false);
  }
  for (const [name, value] of Object.entries(options.default ?? {})) {
    const given = tokens.some((token) =>
      token.kind === "option" && sameFlag(name).includes(token.name)
    );
    if (!given) { for (const member of sameFlag(name)) result[member] = value; }
  }
  for (const name of collect) {
    if (result[name] === undefined) result[name] = [];
  }
  return result;
}
