/**
 * Stand-in for the part of `@std/cli` that wgd uses; see `parse_args.ts`.
 *
 * @module
 */
export * from "./parse_args.ts";
