// A spin lock in one word of shared memory. Who holds one calls nothing of a guest's, and takes another only in this
// order: the domains', a grant table's, active entries by their references, pools. So locks cannot wait for each other
// in a circle.

const FREE = 0;
const HELD = 1;
const SPINS = 200;

/** Takes the lock at `heap[word]`; waits while another thread has it. */
export function lock(heap: Int32Array, word: number): void {
  for (let tries = 0; Atomics.compareExchange(heap, word, FREE, HELD) !== FREE; tries++) {
    // A thread that holds the lock may have been preempted: give it the processor.
    if (tries >= SPINS) Atomics.wait(heap, word, HELD, 0.05);
  }
}

/** Releases a lock that this thread holds. */
export function unlock(heap: Int32Array, word: number): void {
  Atomics.store(heap, word, FREE);
}

/** Runs an operation that must not run beside another one with the same lock. */
export function withLock<Result>(heap: Int32Array, word: number, operation: () => Result): Result {
  lock(heap, word);
  try {
    return operation();
  } finally {
    unlock(heap, word);
  }
}
