// Keeps a read-modify-write of a block apart from every other write to that block (byte-disk.ts).
//
// First come, first served: whoever asks waits for the conflicting ranges that were asked for before it and
// for no other, so there is no cycle of waits as long as an action asks for nothing more while it holds one.

/** A range that somebody holds or waits for; `over` is made when the first one has to wait for it. */
interface Claim {
  readonly start: number;
  readonly end: number;
  over?: { readonly promise: Promise<void>; readonly resolve: () => void };
}

/** Byte ranges of one disk that are being written. */
export class RangeLock {
  readonly #shared = new Set<Claim>();
  readonly #exclusive = new Set<Claim>();

  /** Runs `action` while nobody holds an overlapping range exclusively. `end` is the byte after the last. */
  shared(start: number, end: number, action: () => Promise<void>): Promise<void> {
    return this.#hold(this.#shared, [this.#exclusive], { start, end }, action);
  }

  /** Runs `action` while nobody else holds an overlapping range. `end` is the byte after the last. */
  exclusive(start: number, end: number, action: () => Promise<void>): Promise<void> {
    return this.#hold(this.#exclusive, [this.#exclusive, this.#shared], { start, end }, action);
  }

  async #hold(
    own: Set<Claim>,
    conflicting: readonly Set<Claim>[],
    claim: Claim,
    action: () => Promise<void>,
  ): Promise<void> {
    const earlier = conflicting.flatMap((claims) => [...claims].filter((other) => overlap(claim, other)));
    own.add(claim);
    if (earlier.length > 0) await Promise.all(earlier.map(whenOver));
    try {
      await action();
    } finally {
      own.delete(claim);
      claim.over?.resolve();
    }
  }
}

function overlap(one: Claim, other: Claim): boolean {
  return one.start < other.end && other.start < one.end;
}

function whenOver(claim: Claim): Promise<void> {
  if (!claim.over) {
    let resolve = (): void => undefined;
    const promise = new Promise<void>((done) => {
      resolve = done;
    });
    claim.over = { promise, resolve };
  }
  return claim.over.promise;
}
