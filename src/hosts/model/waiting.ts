// How a domain's thread waits for another domain: by sleeping (parallel), or by letting the others run
// (deterministic). The only difference between the two ways to run the embedded Xen.

/** Waits until `words[index]` is no longer `value`. Returns false when nothing can change it any more. */
export type WaitWhile = (words: Int32Array, index: number, value: number) => boolean;

/** A frontend does not wait for a dead backend for ever; a register access takes microseconds. */
const PATIENCE_MILLISECONDS = 10_000;

/** Sleeps; for a domain with a thread of its own. */
export const sleepWhile: WaitWhile = (words, index, value) =>
  Atomics.wait(words, index, value, PATIENCE_MILLISECONDS) !== 'timed-out';
