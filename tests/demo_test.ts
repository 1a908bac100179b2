/**
 * The demo: what it prints, that it leaves nothing behind, also when it is
 * interrupted, that it works for an ordinary user where the kernel allows it,
 * and that it says what is missing where it does not.
 *
 * @module
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { fileURLToPath } from "node:url";
import { decide, type Facts, lookAround } from "../tools/demo_checks.ts";
import { parseIperf, parsePing } from "../tools/demo_measure.ts";
import { isInstalled } from "../tools/demo_process.ts";
import {
  formatBytes,
  formatMs,
  formatRate,
  Report,
} from "../tools/demo_report.ts";

const CHECKOUT = fileURLToPath(new URL("../", import.meta.url));
/** Marks every process of one run by its environment. */
const MARK = "WGD_DEMO_TEST";
const NOBODY = "65534";
const SIGNAL_STATUS = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;

const way = decide(await lookAround([]));
const obstacle = Array.isArray(way) ? way.join("; ") : undefined;
const rootObstacle = way === "namespaces" ? undefined : obstacle ??
  "needs root";
const nobodyObstacle = rootObstacle ?? await refusal(
  ["true"],
  "needs setpriv (util-linux), and the right to become another user",
);
const userObstacle = nobodyObstacle ?? await refusal(
  ["unshare", "-Urnm", "ip", "link", "set", "lo", "up"],
  "ordinary users get no user namespaces here",
);

/** `why`, if nobody cannot run `argv`. */
async function refusal(
  argv: readonly string[],
  why: string,
): Promise<string | undefined> {
  if (!isInstalled("setpriv")) return why;
  return (await output(asNobody(argv))).success ? undefined : why;
}

/** A test that is skipped, and says why, where the machine does not allow it. */
function machineTest(
  name: string,
  why: string | undefined,
  fn: () => Promise<void>,
): void {
  const skipped = why === undefined ? "" : ` (skipped: ${why})`;
  Deno.test({ name: name + skipped, ignore: why !== undefined, fn });
}

async function output(argv: readonly string[]): Promise<Deno.CommandOutput> {
  const [program, ...args] = argv;
  return await new Deno.Command(program, { args }).output();
}

function asNobody(argv: readonly string[]): string[] {
  const ids = [`--reuid=${NOBODY}`, `--regid=${NOBODY}`, "--clear-groups"];
  return ["setpriv", ...ids, "--", ...argv];
}

/** A run of the demo. */
class Run {
  readonly #mark = crypto.randomUUID();
  readonly #child: Deno.ChildProcess;
  readonly #reading: Promise<void>[];
  #changed = Promise.withResolvers<void>();
  out = "";
  err = "";

  constructor(argv: readonly string[], env: Record<string, string> = {}) {
    const [program, ...args] = argv;
    this.#child = new Deno.Command(program, {
      args,
      env: { ...env, [MARK]: this.#mark },
      cwd: "/",
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#reading = [
      this.#read(this.#child.stdout, (text) => this.out += text),
      this.#read(this.#child.stderr, (text) => this.err += text),
    ];
  }

  async #read(
    stream: ReadableStream<Uint8Array<ArrayBuffer>>,
    add: (text: string) => void,
  ): Promise<void> {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      add(text);
      this.#changed.resolve();
      this.#changed = Promise.withResolvers<void>();
    }
  }

  /** Waits until the report has `text`, and some time more. */
  async reaches(text: string, thenMs: number): Promise<void> {
    const ended = this.#child.status;
    while (!this.out.includes(text)) {
      const status = await Promise.race([this.#changed.promise, ended]);
      assert(status === undefined, `ended early: ${this.out}${this.err}`);
    }
    await new Promise((resolve) => setTimeout(resolve, thenMs));
  }

  kill(signal: Deno.Signal): void {
    this.#child.kill(signal);
  }

  /** Its exit status. */
  async ended(): Promise<number> {
    const { code } = await this.#child.status;
    await Promise.all(this.#reading);
    return code;
  }

  /** Nothing of what it has made is left. */
  assertNothingLeft(): void {
    const tag = /wgd-demo-(\d+)-a/.exec(this.out)?.[1];
    const names = (directory: string): string[] => {
      try {
        return [...Deno.readDirSync(directory)].map(({ name }) => name);
      } catch {
        return [];
      }
    };
    const ours = new RegExp(`^(wgd-demo-${tag}-|wg${tag}[ab](\\.sock)?$)`);
    const directories = [
      "/var/run/netns",
      "/var/run/wireguard",
      "/sys/class/net",
    ];
    const left = directories.flatMap((directory) =>
      names(directory).filter((name) => tag !== undefined && ours.test(name))
        .map((name) => `${directory}/${name}`)
    );
    for (const pid of names("/proc").filter((name) => /^\d+$/.test(name))) {
      if (readOrEmpty(`/proc/${pid}/environ`).includes(this.#mark)) {
        left.push(`process ${readOrEmpty(`/proc/${pid}/cmdline`)}`);
      }
    }
    assertEquals(left, []);
  }
}

function readOrEmpty(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return ""; // a process that has ended
  }
}

function demo(checkout: string, ...args: string[]): string[] {
  return [Deno.execPath(), "run", "-A", `${checkout}tools/demo.ts`, ...args];
}

const SUCCESS_LINES = [
  /^ {2}ok +namespaces +two, joined by a veth pair/m,
  /^ {2}ok +daemons +two, pids \d+ and \d+, ready in [\d.]+ m?s$/m,
  /^ {2}ok +configured +/m,
  /^ {2}ok +up +/m,
  /^ {2}ok +handshake +first answer after [\d.]+ m?s; .* 192\.0\.2\.1:51820$/m,
  /^ {2}ok +ping a -> b +10\.77\.0\.2 +5 of 5 answered, [\d.]+ m?s \(/m,
  /^ {2}ok +ping b -> a +10\.77\.0\.1 +5 of 5 answered, [\d.]+ m?s \(/m,
  /^ {2}ok +TCP a -> b +[\d.]+ [MG]bit\/s, [\d.]+ [MG]B in [\d.]+ s$/m,
  /^ {2}ok +TCP b -> a +[\d.]+ [MG]bit\/s, [\d.]+ [MG]B in [\d.]+ s$/m,
  /^ {2}ok +counted +a sent [\d.]+ [MG]B, received [\d.]+ [MG]B; b sent /m,
  /^ {2}ok +removed +/m,
  /\n\nThe tunnel works both ways\. Took [\d.]+ s\.\n$/,
];

function assertSuccess(run: Run, status: number): void {
  assertEquals(status, 0, run.out + run.err);
  for (const line of SUCCESS_LINES) assertMatch(run.out, line);
  assertEquals(run.out.includes("\x1b"), false, "colours without a terminal");
  run.assertNothingLeft();
}

machineTest(
  "the demo shows a working tunnel and leaves nothing",
  obstacle,
  async () => {
    const run = new Run(demo(CHECKOUT));
    assertSuccess(run, await run.ended());
    assertEquals(run.err, "");
  },
);

machineTest(
  "the demo shows the daemons of the executable that WGD_PROGRAM names",
  obstacle,
  async () => {
    const directory = await Deno.makeTempDir({ prefix: "wgd demo test " });
    try {
      const wgd = Deno.env.get("WGD_PROGRAM") ??
        `${Deno.execPath()}" run -qA "${CHECKOUT}cli.ts`;
      const program = `${directory}/executable`;
      await Deno.writeTextFile(
        program,
        `#!/bin/sh\necho "$1" >> "${directory}/calls"\nexec "${wgd}" "$@"\n`,
        { mode: 0o755 },
      );
      const run = new Run(demo(CHECKOUT), { WGD_PROGRAM: program });
      assertSuccess(run, await run.ended());
      const calls = await Deno.readTextFile(`${directory}/calls`);
      assertEquals(calls, "run\nrun\n");
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  },
);

const MOMENTS = [
  ["while it makes namespaces", "veth ----", 5, "SIGINT"],
  ["while daemons start", "joined by a veth pair", 60, "SIGTERM"],
  ["during the first pings", "handshake", 250, "SIGHUP"],
  ["during the throughput test", "round trips by ", 700, "SIGINT"],
] as const;

for (const [when, text, thenMs, signal] of MOMENTS) {
  machineTest(`${signal} ${when} leaves nothing`, obstacle, async () => {
    const run = new Run(demo(CHECKOUT));
    await run.reaches(text, thenMs);
    run.kill(signal);
    assertEquals(await run.ended(), SIGNAL_STATUS[signal], run.out);
    assertEquals(run.err, `demo: interrupted by ${signal}\n`);
    run.assertNothingLeft();
  });
}

machineTest(
  "a killed demo is cleared away by the next one",
  rootObstacle,
  async () => {
    const killed = new Run(demo(CHECKOUT));
    await killed.reaches("configured", 0);
    killed.kill("SIGKILL");
    // Its daemons hold its pipes open, so its output has no end yet.
    const next = new Run(demo(CHECKOUT));
    await next.reaches("configured", 0);
    next.kill("SIGINT");
    assertEquals(await next.ended(), SIGNAL_STATUS.SIGINT);
    assertMatch(next.out, /^ {2}ok +leftovers +of a killed demo removed: /m);
    await killed.ended();
    killed.assertNothingLeft();
    next.assertNothingLeft();
  },
);

// ---- an ordinary user -------------------------------------------------------

/** A checkout and a Deno that everybody may use. */
interface PublicCopy extends AsyncDisposable {
  readonly checkout: string;
  readonly deno: string;
  readonly env: Record<string, string>;
}

async function mustRun(argv: readonly string[]): Promise<void> {
  const { success, stderr } = await output(argv);
  assert(success, new TextDecoder().decode(stderr));
}

async function publicCopy(): Promise<PublicCopy> {
  const base = await Deno.makeTempDir({ prefix: "wgd demo test " });
  const checkout = `${base}/check out/`;
  const cache = `${base}/deno cache`;
  await Deno.mkdir(checkout);
  const parts = ["cli.ts", "deno.json", "deno.lock", "lib", "packages"];
  const paths = [...parts, "tools"].map((part) => CHECKOUT + part);
  await mustRun(["cp", "-r", ...paths, checkout]);
  const info = await output([Deno.execPath(), "info", "--json"]);
  const { npmCache } = JSON.parse(new TextDecoder().decode(info.stdout));
  for (const { name } of Deno.readDirSync(npmCache)) {
    const packages = `${npmCache}/${name}/@noble`;
    await Deno.mkdir(`${cache}/npm/${name}`, { recursive: true });
    await mustRun(["cp", "-r", packages, `${cache}/npm/${name}/`]);
  }
  await mustRun(["chown", "-R", `${NOBODY}:${NOBODY}`, base]);
  let deno = Deno.execPath();
  if (!(await output(asNobody(["test", "-x", deno]))).success) {
    await Deno.copyFile(deno, `${base}/deno`);
    deno = `${base}/deno`;
  }
  return {
    checkout,
    deno,
    env: { DENO_DIR: cache, HOME: base },
    [Symbol.asyncDispose]: () => Deno.remove(base, { recursive: true }),
  };
}

/** Runs `argv` as nobody, with a /dev/net/tun of its own and of this mode. */
function withTun(mode: string, argv: readonly string[]): string[] {
  const script = "mount -t tmpfs none /mnt && mknod /mnt/tun c 10 200 && " +
    'chmod "$0" /mnt/tun && mount --bind /mnt/tun /dev/net/tun && exec "$@"';
  return ["unshare", "--mount", "sh", "-c", script, mode, ...asNobody(argv)];
}

machineTest(
  "an ordinary user runs the demo in a user namespace, with its own programs",
  userObstacle,
  async () => {
    await using copy = await publicCopy();
    const [, ...args] = demo(copy.checkout, "--builtin");
    const run = new Run(withTun("666", [copy.deno, ...args]), copy.env);
    assertSuccess(run, await run.ended());
    assertMatch(run.out, /in a user namespace/);
    assertMatch(run.out, /by wgd's own UDP echo/);
    assertMatch(run.out, /by wgd's own TCP sender/);

    const interrupted = new Run(withTun("666", [copy.deno, ...args]), copy.env);
    await interrupted.reaches("configured", 0);
    interrupted.kill("SIGTERM");
    assertEquals(await interrupted.ended(), SIGNAL_STATUS.SIGTERM);
    interrupted.assertNothingLeft();
  },
);

machineTest(
  "an ordinary user who may not open /dev/net/tun is told what to do",
  nobodyObstacle,
  async () => {
    await using copy = await publicCopy();
    const [, ...args] = demo(copy.checkout);
    const run = new Run(withTun("600", [copy.deno, ...args]), copy.env);
    assertEquals(await run.ended(), 1);
    assertEquals(run.out, "");
    assertMatch(
      run.err,
      /^demo: an ordinary user may not open \/dev\/net\/tun here \(crw-------\); run the demo as root: sudo '?\/.*deno'? run -A '.*\/check out\/tools\/demo\.ts'$/m,
    );
    assertEquals(/^ +at /m.test(run.err), false, "a stack trace");
    run.assertNothingLeft();
  },
);

// ---- without a machine ------------------------------------------------------

const GOOD: Facts = {
  os: "linux",
  isRoot: true,
  ip: "iproute2",
  tun: "usable",
  tunMode: "",
  mayMakeNamespaces: true,
  userNamespaces: null,
  missing: [],
  installer: "apt-get install",
  asRoot: "sudo demo",
};
const USER: Facts = { ...GOOD, isRoot: false, mayMakeNamespaces: false };

Deno.test("root uses namespaces, others and restricted root a user namespace", () => {
  assertEquals(decide(GOOD), "namespaces");
  assertEquals(decide(USER), "user namespace");
  assertEquals(decide({ ...USER, isRoot: true }), "user namespace");
});

Deno.test("what is missing is named with the command that helps", () => {
  const lines = (facts: Facts): string => {
    const decided = decide(facts);
    assert(Array.isArray(decided));
    return decided.join("\n");
  };
  assertMatch(lines({ ...GOOD, os: "darwin" }), /needs Linux; this is darwin/);
  assertMatch(lines({ ...GOOD, ip: "missing" }), /: apt-get install iproute2$/);
  assertMatch(lines({ ...USER, ip: "missing" }), /: sudo apt-get install ip/);
  assertMatch(
    lines({ ...GOOD, ip: "another", installer: null }),
    /not iproute2's and makes no namespaces; install iproute2$/,
  );
  assertMatch(lines({ ...GOOD, tun: "missing" }), /modprobe tun.*--device/);
  assertMatch(lines({ ...GOOD, tun: "forbidden" }), /--cap-add NET_ADMIN/);
  assertMatch(
    lines({ ...USER, tun: "forbidden", tunMode: "crw-------" }),
    /\(crw-------\); run the demo as root: sudo demo$/,
  );
  assertMatch(
    lines({ ...USER, userNamespaces: "user.max_user_namespaces is 0" }),
    /no namespaces here \(user\.max_user_namespaces is 0\); .*sudo demo$/,
  );
  assertMatch(
    lines({ ...USER, missing: ["nsenter"] }),
    /needs nsenter; install it: sudo apt-get install util-linux, or .*sudo demo/,
  );
  assertEquals(
    lines({ ...USER, ip: "missing", tun: "forbidden" }).split("\n").length,
    2,
  );
});

Deno.test("the results of ping and iperf3 are read", () => {
  const expected = {
    sent: 5,
    received: 4,
    minMs: 0.1,
    avgMs: 0.25,
    maxMs: 1.5,
  };
  const iputils = "5 packets transmitted, 4 received, 20% packet loss, time " +
    "804ms\nrtt min/avg/max/mdev = 0.100/0.250/1.500/0.090 ms\n";
  const busybox = "5 packets transmitted, 4 packets received, 20% packet loss" +
    "\nround-trip min/avg/max = 0.100/0.250/1.500 ms\n";
  assertEquals(parsePing(iputils), expected);
  assertEquals(parsePing(busybox), expected);
  assertEquals(parsePing("ping: socket: Operation not permitted"), null);
  assertEquals(
    parseIperf('{"end":{"sum_received":{"bytes":1000,"seconds":2}}}'),
    { bytes: 1000, seconds: 2 },
  );
  assertEquals(parseIperf('{"error":"Connection refused","end":{}}'), null);
  assertEquals(parseIperf("iperf3: unrecognized option"), null);
});

Deno.test("only a terminal gets colours, and not with NO_COLOR", () => {
  const write = (isTerminal: boolean, noColor?: string): string => {
    let written = "";
    const report = new Report({
      out: (text) => void (written += text),
      err: () => {},
      readStdin: () => Promise.resolve(new Uint8Array()),
      env: (name) => name === "NO_COLOR" ? noColor : undefined,
      isTerminal,
    });
    report.begin("up");
    report.ok("done");
    return written;
  };
  const line = "  ok      up           done\n";
  assertEquals(write(false), line);
  assertEquals(write(true, "1"), `  ...     up\r\x1b[K${line}`);
  assert(write(true).includes("\x1b[32mok"));
});

Deno.test("an unknown option is refused", async () => {
  const run = new Run(demo(CHECKOUT, "--fast"));
  assertEquals(await run.ended(), 2);
  assertEquals(run.err, 'demo: "--fast": expected --builtin or --verbose\n');
});

Deno.test("numbers are shown with three digits", () => {
  assertEquals(formatMs(0.12345), "0.123 ms");
  assertEquals(formatMs(10123), "10.1 s");
  assertEquals(formatRate(1_234e6), "1.23 Gbit/s");
  assertEquals(formatRate(543.21e6), "543 Mbit/s");
  assertEquals(formatBytes(999), "999 B");
  assertEquals(formatBytes(87_654_321), "87.7 MB");
});
