// The references that sequences are about: few, so that operations meet; at both ends of frames and tables; and
// none that a Linux which runs as the caller uses for grants of its own.

import type { Role } from './script.ts';

/** Inside the caller's table whatever its version is: its eight frames have 2048 entries of version 2. */
const SELF = [0, 1, 7, 1500, 1501, 1502, 1503, 1504, 1505, 2047];
/** In two frames of version 1. */
const OTHERS = [0, 7, 8, 9, 10, 11, 12, 511, 512, 1023];

/** References of a domain that grants are written at. */
export function usedRefs(role: Role): readonly number[] {
  return role === 'self' ? SELF : OTHERS;
}

/** References that are there in one version or size of the table and not in another, or never. */
export function doubtfulRefs(role: Role): readonly number[] {
  return role === 'self' ? [2048, 3000, 4095, 40_000, 0xffff_ffff] : [1024, 1535, 2047, 2048, 0xffff_ffff];
}

/** References whose flags are looked at after each step. */
export function observedRefs(role: Role): readonly number[] {
  return [...usedRefs(role), ...doubtfulRefs(role)];
}
