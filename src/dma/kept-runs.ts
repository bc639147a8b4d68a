// Idle runs of the bounce pool whose grants are kept, so that the next buffer of their kind costs no grant and
// no revoke. Knows which was used least recently, by counting uses: no clock is read on the hot path.
// Used by bounce-pages.ts, which decides how many are kept and for how long.

import { MAX_MAPPING_PAGES } from './dma.ts';

/** A run that can be kept. */
export interface Keepable {
  readonly pages: number;
  /** Whether the device may only read it. */
  readonly readonly: boolean;
  /** Set here: a greater one is a later use. */
  lastUse: number;
}

/** Runs of a kind are interchangeable: so many pages, for reading only or not. */
function kindOf(pages: number, readonly: boolean): number {
  return pages * 2 + (readonly ? 1 : 0);
}

export class KeptRuns<Run extends Keepable> {
  /** By kind; in each, the least recently used comes first. */
  readonly #stacks: Run[][] = Array.from({ length: kindOf(MAX_MAPPING_PAGES + 1, false) }, () => []);
  #count = 0;
  /** How often a run has become idle. */
  #uses = 0;
  /** What that was at the last sweep. */
  #swept = 0;

  /** Runs that are kept now. */
  get count(): number {
    return this.#count;
  }

  /** Keeps a run that has just become idle. */
  add(run: Run): void {
    run.lastUse = ++this.#uses;
    this.#stacks[kindOf(run.pages, run.readonly)].push(run);
    this.#count++;
  }

  /** The run of a kind that was used last, and so is likeliest to be in the processor's caches. */
  take(pages: number, readonly: boolean): Run | undefined {
    const run = this.#stacks[kindOf(pages, readonly)].pop();
    if (run !== undefined) this.#count--;
    return run;
  }

  /** The least recently used run of all kinds. */
  takeOldest(): Run | undefined {
    if (this.#count === 0) return undefined;
    let oldest: Run[] | undefined;
    for (const stack of this.#stacks) {
      if (stack.length > 0 && (oldest === undefined || stack[0].lastUse < oldest[0].lastUse)) oldest = stack;
    }
    this.#count--;
    return oldest?.shift();
  }

  /** Takes every run that has not been used since the last sweep. */
  sweep(): Run[] {
    const unused: Run[] = [];
    if (this.#count > 0) {
      for (const stack of this.#stacks) {
        const used = stack.findIndex(({ lastUse }) => lastUse > this.#swept);
        unused.push(...stack.splice(0, used < 0 ? stack.length : used));
      }
    }
    this.#count -= unused.length;
    this.#swept = this.#uses;
    return unused;
  }
}
