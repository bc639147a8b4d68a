// How the threads of a server leave when its process ends: all are told, and those that have left say so. Node waits
// for threads before it ends a process, also for one that is in a system call for ever, as with a disk that hangs.
// Used by vhost-server.ts and xen-server.ts, and by the threads of both.

import type { Libc } from '../hosts/linux/libc.ts';

/** Threads that have not left so long after the process was to end are not waited for. Milliseconds. */
const EXIT_LIMIT = 1000;

/** Words: whether the process ends, and threads that have not left. */
const QUITTING = 0;
const LEFT = 1;

/** The words for so many threads. */
export function quitWords(threads: number): Int32Array {
  const words = new Int32Array(new SharedArrayBuffer(8));
  words[LEFT] = threads;
  return words;
}

/** Whether the process ends: there is nobody to wait for. */
export function isQuitting(words: Int32Array): boolean {
  return Atomics.load(words, QUITTING) !== 0;
}

/** This thread does nothing more. */
export function leave(words: Int32Array): void {
  Atomics.sub(words, LEFT, 1);
  Atomics.notify(words, LEFT);
}

/**
 * Tells all threads to leave, of which `wake` wakes those that sleep.
 *
 * @returns whether all have left within `milliseconds`
 */
export function quitAll(words: Int32Array, wake: () => void, milliseconds: number): boolean {
  Atomics.store(words, QUITTING, 1);
  wake();
  const end = performance.now() + milliseconds;
  for (let left = Atomics.load(words, LEFT); left > 0; left = Atomics.load(words, LEFT))
    if (Atomics.wait(words, LEFT, left, Math.max(0, end - performance.now())) === 'timed-out') return false;
  return true;
}

/**
 * Has the threads of a server leave when the process ends, which Node would wait for, for ever where one is in a system
 * call.
 *
 * @param wake wakes those that sleep, in the kernel or for room to report something
 */
export function leaveAtExit(libc: Libc, words: Int32Array, wake: () => void): void {
  process.once('exit', (status) => {
    if (!quitAll(words, wake, EXIT_LIMIT)) libc._exit(status);
  });
}
