// How much one client may have under way. A request counts from its header until the kernel has the last
// byte of its reply, so neither a flood of requests nor a client that takes no replies grows memory.

/** Requests of one connection at a time. */
export const MAX_REQUESTS = 64;
/** Bytes of payload of one connection at a time, both ways together; one longer request may go alone. */
export const MAX_BYTES = 16 << 20;

/** The requests of one connection that are under way. */
export class InFlight {
  #requests = 0;
  #bytes = 0;
  #waiting: (() => void)[] = [];

  /** Waits for room, then counts a request with `bytes` of payload. */
  async enter(bytes: number): Promise<void> {
    while (!this.#hasRoom(bytes)) await this.#change();
    this.#requests++;
    this.#bytes += bytes;
  }

  /** The request that entered with `bytes` is over. */
  leave(bytes: number): void {
    this.#requests--;
    this.#bytes -= bytes;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const wake of waiting) wake();
  }

  /** Resolves when nothing is under way. */
  async idle(): Promise<void> {
    while (this.#requests > 0) await this.#change();
  }

  #hasRoom(bytes: number): boolean {
    return this.#requests === 0 || (this.#requests < MAX_REQUESTS && this.#bytes + bytes <= MAX_BYTES);
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
    });
  }
}
