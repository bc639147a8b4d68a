// How a domain's thread waits for another domain: by sleeping (parallel), or by letting the others run
// (deterministic). The only difference between the two ways to run the embedded Xen.

/** Waits until `words[index]` is no longer `value`. Returns false when nothing can change it any more. */
export type WaitWhile = (words: Int32Array, index: number, value: number) => boolean;

/** A frontend does not wait for a dead backend for ever; a register access takes microseconds. */
const PATIENCE_MILLISECONDS = 10_000;

/**
 * Stops the thread of a domain that is paused until it is not. On one thread the scheduler gives paused domains no
 * turn, and there is nothing to wait for.
 *
 * @param parkedWord says 1 while the thread stands here
 */
export function parkWhilePaused(heap: Int32Array, pausedWord: number, parkedWord: number): void {
  if (heap[pausedWord] === 0 || !(heap.buffer instanceof SharedArrayBuffer)) return;
  Atomics.store(heap, parkedWord, 1);
  for (let count = Atomics.load(heap, pausedWord); count !== 0; count = Atomics.load(heap, pausedWord))
    Atomics.wait(heap, pausedWord, count);
  Atomics.store(heap, parkedWord, 0);
}

/** Sleeps; for a domain with a thread of its own. */
export const sleepWhile: WaitWhile = (words, index, value) =>
  Atomics.wait(words, index, value, PATIENCE_MILLISECONDS) !== 'timed-out';
