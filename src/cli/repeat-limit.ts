// Keeps a log readable while somebody repeats the same fault again and again: of messages that are alike some are
// shown, the others are counted, and the count is said. Used by serve-log.ts.

/** Messages that are alike shown within one window, and how long that is, in milliseconds. */
const SHOWN = 5;
export const REPEAT_WINDOW = 10_000;
/** Kinds of messages that are told apart in one window; all others are one kind. */
const MOST_KINDS = 256;
const OTHERS = '';

/** A message that is held back, and how often it has come. */
export interface Repeated<M> {
  readonly message: M;
  readonly count: number;
}

interface Kind<M> {
  readonly began: number;
  shown: number;
  held: number;
  last: M;
}

/** Decides which messages are shown. */
export class RepeatLimit<M> {
  readonly #kinds = new Map<string, Kind<M>>();

  /**
   * A message has come.
   *
   * @param text messages are alike when their texts are, apart from numbers
   * @param now milliseconds
   * @returns whether to show it
   */
  admit(text: string, message: M, now: number): boolean {
    const kind = this.#kindOf(text.replace(/0x[0-9a-f]+|\d+/gi, '#'), message, now);
    kind.last = message;
    if (kind.shown < SHOWN) {
      kind.shown++;
      return true;
    }
    kind.held++;
    return false;
  }

  #kindOf(key: string, message: M, now: number): Kind<M> {
    const room = this.#kinds.has(key) || this.#kinds.size < MOST_KINDS;
    const name = room ? key : OTHERS;
    const known = this.#kinds.get(name);
    if (known !== undefined) return known;
    const kind: Kind<M> = { began: now, shown: 0, held: 0, last: message };
    this.#kinds.set(name, kind);
    return kind;
  }

  /** Ends the windows that are over at `now`, and returns what was held back in them. */
  take(now: number): readonly Repeated<M>[] {
    const repeated: Repeated<M>[] = [];
    for (const [key, { began, held, last }] of this.#kinds) {
      if (now - began < REPEAT_WINDOW) continue;
      this.#kinds.delete(key);
      if (held > 0) repeated.push({ message: last, count: held });
    }
    return repeated;
  }
}
