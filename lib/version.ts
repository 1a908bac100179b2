/**
 * The version string, as `version.h` of the kernel driver. No imports.
 *
 * @module
 */

/** Semantic version of wgd, as in deno.json (a test holds them equal). */
export const VERSION = "0.1.0";
