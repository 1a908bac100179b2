/**
 * One round: wgd is started, ended by SIGTERM at some moment, and looked after.
 * What happens in a round follows from the seed and its number; when it happens,
 * by the machine as well.
 */
import { SeededRandom } from "../../lib/selftest/random.ts";
import { getDevice } from "../../lib/uapi_client.ts";
import { readState } from "../../lib/quick_state.ts";
import { delay } from "./process.ts";
import { Driver, type Site } from "./sigterm_driver.ts";
import {
  filesOf,
  handlesSigterm,
  hasSocket,
  processesOf,
  systemState,
} from "./sigterm_left.ts";
import {
  describe,
  END_MS,
  isSignalled,
  Pace,
  Program,
} from "./sigterm_program.ts";
import { INNER, PORT } from "./tunnel.ts";

const WAYS = [
  [],
  ["--threads", "1"],
  ["--threads", "2", "--lanes", "1"],
  ["--threads", "1", "--udp", "plain"],
];
/** How many of a hundred rounds are of which kind. */
const SHARES = {
  run: 74,
  closing: 8,
  up: 6,
  "daemon in up": 4,
  down: 3,
  "daemon in down": 2,
  reload: 3,
} as const;
type Kind = keyof typeof SHARES;
/** Most rounds end early, where the most happens. */
const EARLY = 0.6;

/** What came of a round. */
export interface Outcome {
  readonly round: number;
  /** Where the signal found it. */
  readonly phase: string;
  /** From the signal to the end of the process. */
  readonly tookMs: number;
  readonly findings: readonly string[];
}

/** Rounds in one namespace. */
export class Rounds {
  readonly #site: Site;
  readonly #seed: number;
  readonly #before: string;
  readonly #beforeAll: string;
  readonly #startPace = new Pace(300);
  readonly #commandPace = {
    up: new Pace(600),
    down: new Pace(300),
    reload: new Pace(300),
  };
  #random = new SeededRandom(0);
  #findings: string[] = [];

  /** Takes what the system knows now for what it is to know after each round. */
  constructor(site: Site, seed: number) {
    this.#site = site;
    this.#seed = seed;
    this.#before = systemState(false);
    this.#beforeAll = systemState(true);
  }

  /** Plays a round. */
  async play(round: number): Promise<Outcome> {
    this.#random = new SeededRandom(this.#seed + round * 0x10001);
    this.#findings = [];
    const kind = this.#kind();
    const outcome = await this.#act(kind);
    await this.#assertNothingLeft(kind);
    return { round, ...outcome, findings: this.#findings };
  }

  #kind(): Kind {
    let n = this.#random.below(100);
    for (const [kind, share] of Object.entries(SHARES)) {
      if (n < share) return kind as Kind;
      n -= share;
    }
    return "run";
  }

  #act(kind: Kind): Promise<Pick<Outcome, "phase" | "tookMs">> {
    switch (kind) {
      case "run":
      case "closing":
        return this.#endDaemon(kind === "closing");
      case "up":
        return this.#endUp();
      case "daemon in up":
        return this.#endDaemonIn("up");
      case "daemon in down":
        return this.#endDaemonIn("down");
      case "down":
      case "reload":
        return this.#endCommand(kind);
    }
  }

  #start(...words: readonly string[]): Program {
    const { wgd, directory } = this.#site;
    return new Program([...wgd, ...words], `${directory}/log-${words[0]}`);
  }

  /** A moment: `early` times as long as it takes, or up to three times that. */
  #moment(usualMs: number, early: number): number {
    const isEarly = this.#random.word() < EARLY * 2 ** 32;
    const most = usualMs * early * (isEarly ? 1 : 3);
    return this.#random.word() / 2 ** 32 * most;
  }

  // ---- a daemon in the foreground -------------------------------------------

  async #endDaemon(
    twice: boolean,
  ): Promise<Pick<Outcome, "phase" | "tookMs">> {
    const { name } = this.#site;
    const way = WAYS[this.#random.below(WAYS.length)];
    const afterMs = this.#moment(this.#startPace.ms, 2);
    const daemon = this.#start("run", "-f", ...way, name);
    const driver = new Driver(
      this.#site,
      new SeededRandom(this.#random.word()),
      { traffic: this.#random.below(2) === 0, marks: !way.includes("plain") },
    );
    await delay(afterMs);
    const handles = handlesSigterm(daemon.child.pid);
    let phase: string = handles ? driver.phase : "before JavaScript";
    if (daemon.status !== undefined) {
      this.#find(`it ended by itself: ${describe(daemon.status)}`);
    }
    driver.stop();
    const startMs = performance.now();
    if (twice) {
      await this.#beginEnd(daemon);
      await delay(this.#random.below(60));
      if (daemon.status === undefined) phase = `closing (${phase})`;
    }
    daemon.signal("SIGTERM");
    const status = await daemon.ended();
    const tookMs = performance.now() - startMs;
    if (status === undefined) {
      this.#find(`still there ${END_MS} ms after the signal`);
      daemon.signal("SIGKILL");
      await daemon.ended();
    }
    await driver.ended();
    for (const problem of driver.problems) this.#find(`before: ${problem}`);
    if (driver.answeredMs > 0) {
      this.#startPace.saw(driver.answeredMs - daemon.startMs);
    }
    if (phase === "starting" && isSignalled(status)) {
      // Deno handles all of them a moment before ours are asked for.
      phase = "as it begins to handle signals";
    }
    // Once all is closed, a second signal may end it as it would any program.
    const bySignal = !handles || twice || driver.answeredMs === 0;
    const fine = status?.code === 0 || (bySignal && isSignalled(status));
    if (!fine) this.#find(`ended with ${describe(status)}`);
    if (daemon.said !== "") this.#find(`it said: ${daemon.said}`);
    return { phase, tookMs };
  }

  /** Something else that ends a daemon, so that the signal finds it closing. */
  async #beginEnd(daemon: Program): Promise<void> {
    const { name } = this.#site;
    const ways = [
      (): void => void daemon.signal("SIGTERM"),
      (): void => void daemon.signal("SIGINT"),
      async (): Promise<void> => {
        await new Deno.Command("ip", { args: ["link", "del", name] }).output();
      },
      (): void => Deno.removeSync(`/var/run/wireguard/${name}.sock`),
    ];
    const count = hasSocket(name) ? ways.length : 2;
    try {
      await ways[this.#random.below(count)]();
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }

  // ---- wgd up, down, reload --------------------------------------------------

  async #endUp(): Promise<Pick<Outcome, "phase" | "tookMs">> {
    const { name, configuration } = this.#site;
    this.#writeConfiguration(this.#random.below(4) === 0);
    const up = this.#start("up", configuration);
    await delay(this.#moment(this.#commandPace.up.ms, 1.2));
    if (up.status !== undefined) {
      // It is up already: the daemon gets it.
      this.#assertOk(up, up.status);
      return await this.#endDaemonOfUp("daemon after up");
    }
    const handles = handlesSigterm(up.child.pid);
    const phase = handles ? "up" : "up, before it handles signals";
    const { status, tookMs } = await this.#terminate(up);
    const isUp = readState(name)?.complete === true;
    const bySignal = !handles || isUp;
    const fine = status?.code === (isUp ? 0 : 1) ||
      (bySignal && status?.signal === "SIGTERM");
    if (!fine) this.#find(`up ended with ${describe(status)}: ${up.said}`);
    if (isUp) await this.#assertDown();
    return { phase, tookMs };
  }

  /** The daemon is ended while `up` or `down` is at work. */
  async #endDaemonIn(
    what: "up" | "down",
  ): Promise<Pick<Outcome, "phase" | "tookMs">> {
    const { name, configuration } = this.#site;
    this.#writeConfiguration(this.#random.below(4) === 0);
    if (what === "down" && !await this.#up()) return { phase: what, tookMs: 0 };
    const command = this.#start(what, configuration);
    const pace = this.#commandPace[what].ms;
    await delay(this.#moment(pace, 1));
    const startMs = performance.now();
    signalAll(this.#daemons(), "SIGTERM");
    const status = await command.ended(2 * END_MS);
    const tookMs = performance.now() - startMs;
    if (status === undefined) {
      this.#find(`${what} does not end`);
      command.signal("SIGKILL");
    }
    if (what === "up" && status?.code === 0) await this.#assertDown();
    if (what === "down") {
      if (status?.code !== 0) {
        this.#find(`down ended with ${describe(status)}: ${command.said}`);
      }
    }
    this.#assertNoBug(command);
    if (readState(name) !== undefined) await this.#assertDown();
    return { phase: `daemon in ${what}`, tookMs };
  }

  async #endDaemonOfUp(
    phase: string,
  ): Promise<Pick<Outcome, "phase" | "tookMs">> {
    const startMs = performance.now();
    signalAll(this.#daemons(), "SIGTERM");
    while (this.#daemons().length > 0 && performance.now() - startMs < END_MS) {
      await delay(2);
    }
    const tookMs = performance.now() - startMs;
    if (this.#daemons().length > 0) this.#find("the daemon does not end");
    await this.#assertDown();
    return { phase, tookMs };
  }

  /** `down` or `reload` is ended, then `down` has to do all that is left. */
  async #endCommand(
    what: "down" | "reload",
  ): Promise<Pick<Outcome, "phase" | "tookMs">> {
    const { name, configuration } = this.#site;
    const everything = this.#random.below(4) === 0;
    this.#writeConfiguration(everything);
    if (!await this.#up()) return { phase: what, tookMs: 0 };
    if (what === "reload") this.#writeConfiguration(everything, true);
    const command = this.#start(what, configuration);
    await delay(this.#moment(this.#commandPace[what].ms, 1.2));
    const isOver = command.status !== undefined;
    const { status, tookMs } = await this.#terminate(command);
    const fine = status?.code === 0 || (!isOver && isSignalled(status)) ||
      (!isOver && /interrupted|ended by SIGTERM/.test(command.said));
    if (!fine) {
      this.#find(`${what} ended with ${describe(status)}: ${command.said}`);
    }
    if (isOver) {
      this.#commandPace[what].saw(performance.now() - command.startMs);
    }
    if (what === "reload") {
      try {
        await getDevice(name);
      } catch (error) {
        this.#find(`after reload: ${error}`);
      }
    }
    if (readState(name) !== undefined) await this.#assertDown();
    return { phase: isOver ? `${what}, over` : what, tookMs };
  }

  #writeConfiguration(everything: boolean, changed = false): void {
    const { configuration, privateText, peerText, endpoint } = this.#site;
    const more = changed ? ", 10.67.0.0/16" : "";
    const allowed = everything
      ? "0.0.0.0/0, ::/0"
      : `${INNER.b.v4}/32, 10.66.0.0/16${more}`;
    Deno.writeTextFileSync(
      configuration,
      `[Interface]
PrivateKey = ${privateText}
ListenPort = ${PORT.a + (changed ? 1 : 0)}
Address = ${INNER.a.v4}/24, ${changed ? "10.68.0.1/24, " : ""}${INNER.a.v6}/64

[Peer]
PublicKey = ${peerText}
AllowedIPs = ${allowed}
Endpoint = ${endpoint}
`,
      { mode: 0o600 },
    );
  }

  #daemons(): number[] {
    return processesOf(this.#site.name).filter((pid) => {
      try {
        const words = Deno.readTextFileSync(`/proc/${pid}/cmdline`).split("\0");
        return words.includes("run");
      } catch {
        return false;
      }
    });
  }

  async #terminate(
    program: Program,
  ): Promise<{ status?: Deno.CommandStatus; tookMs: number }> {
    const startMs = performance.now();
    program.signal("SIGTERM");
    // Both wait up to five seconds for a daemon to end.
    const status = await program.ended(2 * END_MS);
    const tookMs = performance.now() - startMs;
    if (status === undefined) {
      this.#find("the command does not end");
      program.signal("SIGKILL");
      await program.ended();
    }
    this.#assertNoBug(program);
    return { status, tookMs };
  }

  async #up(): Promise<boolean> {
    const up = this.#start("up", this.#site.configuration);
    const status = await up.ended(4 * END_MS);
    this.#assertOk(up, status);
    if (status?.code === 0) {
      this.#commandPace.up.saw(performance.now() - up.startMs);
    }
    return status?.code === 0;
  }

  async #assertDown(): Promise<void> {
    const down = this.#start("down", this.#site.configuration);
    const status = await down.ended(4 * END_MS);
    this.#assertOk(down, status);
    this.#commandPace.down.saw(performance.now() - down.startMs);
  }

  #assertOk(program: Program, status: Deno.CommandStatus | undefined): void {
    if (status?.code === 0) return;
    this.#find(`${program.log}: ${describe(status)}: ${program.said}`);
  }

  #assertNoBug(program: Program): void {
    if (/bug in wgd|ncaught|panicked/.test(program.said)) {
      this.#find(program.said);
    }
  }

  #find(what: string): void {
    this.#findings.push(what);
  }

  // ---- afterwards ------------------------------------------------------------

  /** What daemons in the background leave goes with them, within their bound. */
  async #assertNothingLeft(kind: Kind): Promise<void> {
    const { name } = this.#site;
    const foreground = kind === "run" || kind === "closing";
    const giveUpMs = performance.now() + (foreground ? 0 : END_MS);
    for (;;) {
      const left = [
        ...filesOf(name).map((file) => `the file ${file}`),
        ...processesOf(name).map((pid) => `process ${pid}`),
      ];
      const before = foreground ? this.#before : this.#beforeAll;
      const now = systemState(!foreground);
      if (now !== before) left.push(difference(before, now));
      if (left.length === 0) return;
      if (performance.now() > giveUpMs) {
        this.#find(`left behind: ${left.join(", ")}`);
        await this.#tidy();
        return;
      }
      await delay(20);
    }
  }

  /** So that the next round is not blamed for this one. */
  async #tidy(): Promise<void> {
    const { name } = this.#site;
    signalAll(processesOf(name), "SIGKILL");
    await new Deno.Command("ip", { args: ["link", "del", name] }).output();
    for (const file of filesOf(name)) {
      Deno.removeSync(`/var/run/wireguard/${file}`);
    }
    for (const family of ["-4", "-6"]) {
      for (let i = 0; i < 4; i++) {
        const args = [family, "rule", "del", "pref", String(32_764 + i % 2)];
        await new Deno.Command("ip", { args }).output();
      }
    }
    await delay(100);
  }
}

function signalAll(pids: readonly number[], signal: Deno.Signal): void {
  for (const pid of pids) {
    try {
      Deno.kill(pid, signal);
    } catch {
      // It has just ended.
    }
  }
}

function difference(before: string, after: string): string {
  const lines = new Set(before.split("\n"));
  const more = after.split("\n").filter((line) => !lines.has(line));
  const then = new Set(after.split("\n"));
  const less = before.split("\n").filter((line) => !then.has(line));
  return `${JSON.stringify(more)} more, ${JSON.stringify(less)} less`;
}
