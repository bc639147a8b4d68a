// Which accesses of a scope somebody else can notice, as far as the runs so far have shown; see scope.ts for what
// follows from it, and why a search that ends without learning anything new has missed nothing.
//
// A read is noticed when another actor writes the word; a write when another, or the observer, reads or writes it. Blind
// additions, whose result nobody looks at, commute with each other: only reads and other writes notice them.
// Not so where the word is guarded: a lock guards a word when nobody ever touched it who did not hold that lock. A
// word is a lock as long as nobody does anything to it but take it (a compare-and-swap from 0 to 1), wait for it, and,
// who holds it, release it (a store of 0).

import type { Access } from './access.ts';
import type { Touched } from './shared-words.ts';

/** Whoever looks at memory between two steps, as a reader among the actors. */
export const OBSERVER = 7;
/** Actors and the observer, a bit each. */
export const MOST_ACTORS = 7;

/** Who can notice an access: nobody ever, nobody before a lock is released, or others at once. */
export type Notice = 'nobody' | 'guarded' | 'others';

/** What an access does to a word. */
type Manner = 'reads' | 'writes' | 'adds';

/** What is known of one word. */
class Word {
  /** Who has done what to it, a bit each. */
  readonly by: Record<Manner, number> = { reads: 0, writes: 0, adds: 0 };
  /** Locks that everybody held who has touched it since it was known to be in conflict. */
  guards: Set<number> | undefined;
  /** Whether nothing was done to it that is not done to a lock, and whether anybody ever took it. */
  isLock = true;
  wasTaken = false;

  /** Whether others than `actor` make accesses that one of this manner is in conflict with. */
  inConflict(actor: number, manner: Manner): boolean {
    const { reads, writes, adds } = this.by;
    const others = writes | (manner === 'reads' ? adds : reads) | (manner === 'writes' ? adds : 0);
    return (others & ~(1 << actor)) !== 0;
  }

  /** Whether any two are in conflict about it. */
  get isContended(): boolean {
    const { reads, writes, adds } = this.by;
    const parties = writes !== 0 ? reads | writes | adds : adds !== 0 && reads !== 0 ? reads | adds : 0;
    return (parties & (parties - 1)) !== 0;
  }
}

/** What all runs of a scope have shown. */
export class Conflicts {
  readonly #words: (Word | undefined)[];

  /** Words in conflict that no lock guards. */
  get open(): number {
    return [...this.contended].filter((number) => !this.#words[number]?.guards?.size).length;
  }

  /** Words in conflict: what all others hold follows from what one actor has read. */
  readonly contended = new Set<number>();

  /** @param count how many words there are; they have numbers from 0 */
  constructor(count: number) {
    this.#words = new Array<Word | undefined>(count).fill(undefined);
  }

  /** Whether the observer has ever looked at one of these words. */
  isObserved(numbers: readonly number[]): boolean {
    return numbers.some((number) => ((this.#words[number]?.by.reads ?? 0) & (1 << OBSERVER)) !== 0);
  }

  /** Who can notice when an actor that holds `held` touches these. */
  noticeOf(actor: number, { reads, writes, isBlind }: Touched, held: ReadonlySet<number>): Notice {
    let notice: Notice = 'nobody';
    for (const number of reads) notice = this.#later(notice, number, actor, 'reads', held);
    for (const number of writes)
      notice = this.#later(notice, number, actor, isBlind ? 'adds' : 'writes', held);
    return notice;
  }

  /** Notes what an actor touches. Returns whether that shows anything new that matters. */
  note(actor: number, { reads, writes, isBlind }: Touched, held: ReadonlySet<number>): boolean {
    let isNew = false;
    for (const number of reads) if (this.#note(number, actor, 'reads', held)) isNew = true;
    for (const number of writes)
      if (this.#note(number, actor, isBlind ? 'adds' : 'writes', held)) isNew = true;
    return isNew;
  }

  /**
   * Notes what an access does to the locks that its actor holds: `held` is what it holds afterwards. Returns whether it
   * shows that what was thought to be a lock is none.
   */
  noteLocks(
    { kind, operands }: Access,
    { reads, writes }: Touched,
    result: unknown,
    held: Set<number>,
  ): boolean {
    if (kind === 'Atomics.wait' || kind === 'Atomics.notify') return false;
    const [number] = writes;
    const word = this.#words[number];
    if (word?.isLock && kind === 'Atomics.compareExchange' && operands[1] === 0 && operands[2] === 1) {
      word.wasTaken = true;
      if (result === 0) held.add(number);
      return false;
    }
    if (kind === 'Atomics.store' && operands[1] === 0 && held.delete(number)) return false;
    let wasLock = false;
    for (const each of reads) if (this.#isNoLock(each)) wasLock = true;
    for (const each of writes) if (this.#isNoLock(each)) wasLock = true;
    return wasLock;
  }

  #later(notice: Notice, number: number, actor: number, manner: Manner, held: ReadonlySet<number>): Notice {
    const word = this.#words[number];
    if (notice === 'others' || word === undefined || !word.inConflict(actor, manner)) return notice;
    return isGuarded(word, held) ? 'guarded' : 'others';
  }

  #note(number: number, actor: number, manner: Manner, held: ReadonlySet<number>): boolean {
    this.#words[number] ??= new Word();
    const word = this.#words[number];
    const bit = 1 << actor;
    const isFirst = (word.by[manner] & bit) === 0;
    word.by[manner] |= bit;
    if (!word.isContended) return false;
    this.contended.add(number);
    const isOpened = narrow(word, held);
    return isOpened || (isFirst && word.inConflict(actor, manner));
  }

  #isNoLock(number: number): boolean {
    const word = this.#words[number];
    if (word === undefined || !word.isLock) return false;
    word.isLock = false;
    if (word.wasTaken) for (const other of this.#words) other?.guards?.delete(number);
    return word.wasTaken;
  }
}

/** Leaves the guards that are held. Returns whether the last one has gone. */
function narrow(word: Word, held: ReadonlySet<number>): boolean {
  if (word.guards === undefined) {
    word.guards = new Set(held);
    return false;
  }
  if (word.guards.size === 0) return false;
  for (const lock of word.guards) if (!held.has(lock)) word.guards.delete(lock);
  return word.guards.size === 0;
}

function isGuarded(word: Word, held: ReadonlySet<number>): boolean {
  for (const lock of word.guards ?? held) if (held.has(lock)) return true;
  return false;
}
