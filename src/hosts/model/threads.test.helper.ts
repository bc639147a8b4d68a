// Real threads over one machine: a test file starts itself again as worker threads, each of which plays one
// part, and all parts go through the same barriers.

import { Worker, workerData } from 'node:worker_threads';
import { Xen } from './xen.ts';
import type { XenState } from './state.ts';

/** What a worker thread is given. */
interface Part {
  readonly part: string;
  readonly state: XenState;
  readonly shared: SharedArrayBuffer;
}

/** Words that the threads of a test share, beside the machine; the last two belong to the barrier. */
const SHARED_WORDS = 64;
const ARRIVED = SHARED_WORDS - 2;
const GENERATION = SHARED_WORDS - 1;

/** What all threads of one test have. */
export interface Stage {
  readonly xen: Xen;
  /** Counters and signals of the test. */
  readonly words: Int32Array;
}

/** Words for a new test. */
export function newStage(xen: Xen): Stage {
  return { xen, words: new Int32Array(new SharedArrayBuffer(SHARED_WORDS * 4)) };
}

/** The part that this worker thread is to play, and its stage. */
export function myPart(): Stage & { readonly part: string } {
  const { part, state, shared } = workerData as Part;
  return { part, xen: new Xen(state), words: new Int32Array(shared) };
}

/** Runs `parts`, each in a thread that starts `file` again, until all have ended. Rejects with what one threw. */
export async function perform(file: string, { xen, words }: Stage, parts: readonly string[]): Promise<void> {
  const run = (part: string) =>
    new Promise<void>((resolve, reject) => {
      const data = { part, state: xen.state, shared: words.buffer };
      const worker = new Worker(new URL(file), { workerData: data });
      worker.once('error', reject);
      worker.once('exit', () => resolve());
    });
  await Promise.all(parts.map(run));
}

/** Looks before a thread at the barrier sleeps: whoever spins leaves it at the same moment as the others. */
const SPINS = 20_000;

/** Waits until `count` threads have come here. */
export function meet({ words }: Stage, count: number): void {
  const generation = Atomics.load(words, GENERATION);
  if (Atomics.add(words, ARRIVED, 1) + 1 === count) {
    Atomics.store(words, ARRIVED, 0);
    Atomics.add(words, GENERATION, 1);
    Atomics.notify(words, GENERATION);
    return;
  }
  for (let spins = 0; Atomics.load(words, GENERATION) === generation; spins++)
    if (spins > SPINS) Atomics.wait(words, GENERATION, generation, 1);
}
