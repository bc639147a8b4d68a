// How much one client may have of something at a time: of requests under way, of the guest's memory.
// Used by transmission.ts.

const ADMITTED = Promise.resolve();

interface Waiting {
  readonly bytes: number;
  readonly admit: () => void;
}

/** A limit on a number of things and on their bytes together; one that is larger than that goes alone. */
export class Allowance {
  readonly #maxCount: number;
  readonly #maxBytes: number;
  readonly #queue: Waiting[] = [];
  #count = 0;
  #bytes = 0;
  #whenIdle: (() => void)[] = [];

  constructor(maxCount: number, maxBytes: number) {
    this.#maxCount = maxCount;
    this.#maxBytes = maxBytes;
  }

  /** Waits for room behind those that came before, then counts a thing of `bytes`. */
  enter(bytes: number): Promise<void> {
    if (this.#queue.length > 0 || !this.#hasRoom(bytes))
      return new Promise((admit) => {
        this.#queue.push({ bytes, admit });
      });
    this.#add(bytes);
    return ADMITTED;
  }

  /** A thing that entered with `bytes` is over. */
  leave(bytes: number): void {
    this.#count--;
    this.#bytes -= bytes;
    while (this.#queue.length > 0 && this.#hasRoom(this.#queue[0].bytes)) {
      const next = this.#queue[0];
      this.#queue.shift();
      this.#add(next.bytes);
      next.admit();
    }
    if (this.#count > 0) return;
    for (const resolve of this.#whenIdle.splice(0)) resolve();
  }

  /** Resolves when nothing is counted. */
  idle(): Promise<void> {
    if (this.#count === 0) return ADMITTED;
    return new Promise((resolve) => {
      this.#whenIdle.push(resolve);
    });
  }

  #hasRoom(bytes: number): boolean {
    return this.#count === 0 || (this.#count < this.#maxCount && this.#bytes + bytes <= this.#maxBytes);
  }

  #add(bytes: number): void {
    this.#count++;
    this.#bytes += bytes;
  }
}
