/**
 * Work of control that is too long to be done in one go (a change of all peers,
 * say): done in slices, between which packets, handshakes and timers have their
 * turn. One job after the other, in the order in which they began. Pure.
 *
 * @module
 */

/**
 * Does a slice of a job: about 1 ms of work at most.
 *
 * @returns whether there is more to do
 */
export type Step = () => boolean;

interface Job {
  readonly step: Step;
  readonly done: PromiseWithResolvers<void>;
}

/** The jobs of one device. Control only. */
export class Slices {
  readonly #jobs: Job[] = [];
  readonly #more: () => void;

  /** @param more called when a job was begun that is not done yet */
  constructor(more: () => void) {
    this.#more = more;
  }

  /** Whether a job is under way. */
  get pending(): boolean {
    return this.#jobs.length > 0;
  }

  /**
   * Begins a job; its first slice is done at once if no other waits, so that
   * little work needs no second one.
   *
   * @returns resolves when the job is done; undefined if it is
   */
  begin(step: Step): Promise<void> | undefined {
    if (!this.pending && !step()) return undefined;
    const job = { step, done: Promise.withResolvers<void>() };
    this.#jobs.push(job);
    this.#more();
    return job.done.promise;
  }

  /** Resolves when all jobs so far are done; undefined if there is none. */
  settled(): Promise<void> | undefined {
    return this.#jobs.at(-1)?.done.promise;
  }

  /** Does a slice of the oldest job; false when there was none. */
  run(): boolean {
    const job = this.#jobs[0];
    if (job === undefined) return false;
    if (!job.step()) {
      this.#jobs.shift();
      job.done.resolve();
    }
    return true;
  }

  /** Does all that is left in one go: for the end, where nobody waits. */
  finish(): void {
    while (this.run());
  }
}
