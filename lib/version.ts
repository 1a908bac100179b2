/**
 * The version string, as `version.h` of the kernel driver. No imports.
 *
 * @module
 */

/** Semantic version of wgd, as in deno.json (a test holds them equal). */
export const VERSION = "0.1.0";

/**
 * In an executable, tools/compile.ts has put the commit in place of the mark;
 * it may end in "-dirty".
 */
const COMMIT = "@wgd-commit@";

/** Version and, in an executable, the commit that it was made from. */
export const FULL_VERSION: string = COMMIT.startsWith("@")
  ? VERSION
  : `${VERSION} (${COMMIT})`;
