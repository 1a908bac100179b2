/** What the benchmarks share: medians, timing of short functions, tables. */

/** The value below which the part `p` of the values is. */
export function percentile(values: readonly number[], p: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))];
}

/** The value in the middle. */
export function median(values: readonly number[]): number {
  return percentile(values, 0.5);
}

const ROUNDS = 15;
const ROUND_MS = 6;

/**
 * Time of one of the `operations` that a call of `run` does, in ns: the median of
 * many short rounds, behind some that are not counted.
 */
export function nsEach(operations: number, run: () => void): number {
  const rounds: number[] = [];
  for (let round = -ROUNDS; round < ROUNDS; round++) {
    const start = performance.now();
    let calls = 0;
    let elapsedMs = 0;
    do {
      for (let i = 0; i < 16; i++) run();
      calls += 16;
      elapsedMs = performance.now() - start;
    } while (elapsedMs < ROUND_MS);
    if (round >= 0) rounds.push(elapsedMs * 1e6 / (calls * operations));
  }
  return median(rounds);
}

/** Rows of cells as a table; the first column to the left, numbers to the right. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = rows.reduce<number[]>((widths, row) => {
    row.forEach((cell, i) => widths[i] = Math.max(widths[i] ?? 0, cell.length));
    return widths;
  }, []);
  return rows.map((row) =>
    row.map((cell, i) =>
      i === 0 ? cell.padEnd(widths[0]) : cell.padStart(widths[i] + 2)
    ).join("").trimEnd()
  ).join("\n");
}

/** A number with as many digits as are worth reading. */
export function digits(value: number): string {
  if (!Number.isFinite(value)) return "-";
  return value.toFixed(Math.abs(value) >= 100 ? 0 : value >= 10 ? 1 : 2);
}
