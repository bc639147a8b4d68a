// How long a worker looks at rings that have nothing before it sleeps. Looking costs a processor, sleeping costs a
// driver some microseconds: so it grows while sleeps are short, when looking on would have spared them, and shrinks
// to nothing while they are long. (The rule by which KVM polls for a halted processor.)

/** What polling starts with again, as a part of the longest. */
const FIRST = 1 / 8;

/** The poll time of one worker, in milliseconds. */
export class PollTime {
  readonly #longest: number;
  #current: number;

  constructor(longest: number) {
    this.#longest = longest;
    this.#current = longest;
  }

  get current(): number {
    return this.#current;
  }

  /** The worker has slept for so long. */
  slept(milliseconds: number): void {
    const first = this.#longest * FIRST;
    if (milliseconds <= this.#longest)
      this.#current = Math.min(this.#longest, Math.max(first, this.#current * 2));
    else this.#current = this.#current > first ? this.#current / 2 : 0;
  }
}
