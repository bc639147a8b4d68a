// The shared memory of a scope as numbered words: which words an access touches, what they held at first, so that
// each run starts afresh, and what has changed since.

import { type Access, isBlind, isOfElement, readsOnly, type Span, spans, writesOnly } from './access.ts';

/** A word that some run has written. */
interface Slot {
  readonly view: Int32Array;
  readonly index: number;
  readonly first: number;
}

/** The words that an access reads and writes, by number. */
export interface Touched {
  readonly reads: readonly number[];
  readonly writes: readonly number[];
  /** Whether what it does to the words that it writes is a blind addition. */
  readonly isBlind: boolean;
}

const NONE: readonly number[] = [];
export const NOTHING: Touched = { reads: NONE, writes: NONE, isBlind: false };

export class SharedWords {
  readonly #views: readonly Int32Array[];
  readonly #copies: readonly Int32Array[];
  /** Number of the first word of each buffer. */
  readonly #bases = new Map<ArrayBufferLike, number>();
  readonly #slots = new Map<number, Slot>();
  /** How many words there are. */
  readonly count: number;

  constructor(buffers: readonly ArrayBufferLike[]) {
    this.#views = buffers.map((buffer) => new Int32Array(buffer));
    this.#copies = this.#views.map((view) => view.slice());
    let words = 0;
    for (const view of this.#views) {
      this.#bases.set(view.buffer, words);
      words += view.length;
    }
    this.count = words;
  }

  /** Whether a buffer is one of the shared ones. */
  has(buffer: ArrayBufferLike): boolean {
    return this.#bases.has(buffer);
  }

  /** What an access touches of the shared memory. */
  touched(access: Access): Touched {
    const { view, operands } = access;
    if (isOfElement(access)) {
      const base = this.#bases.get(view.buffer);
      if (base === undefined) return NOTHING;
      const size = (view as Int32Array).BYTES_PER_ELEMENT;
      const word = [base + ((view.byteOffset + (operands[0] as number) * size) >> 2)];
      if (readsOnly(access)) return { reads: word, writes: NONE, isBlind: false };
      const blind = isBlind(access);
      return { reads: blind || writesOnly(access) ? NONE : word, writes: word, isBlind: blind };
    }
    const { reads, writes } = spans(access);
    return { reads: this.#words(reads), writes: this.#words(writes), isBlind: false };
  }

  /** Notes that words are written, which `restore` will undo. */
  noteWrites(words: readonly number[]): void {
    for (const word of words) {
      if (this.#slots.has(word)) continue;
      let index = word;
      let buffer = 0;
      while (index >= this.#views[buffer].length) index -= this.#views[buffer++].length;
      this.#slots.set(word, { view: this.#views[buffer], index, first: this.#copies[buffer][index] });
    }
  }

  /** Everything as it was at first, where nothing but noted accesses has written. */
  restore(): void {
    for (const { view, index, first } of this.#slots.values()) view[index] = first;
  }

  /** The same, whoever has written. */
  restoreAll(): void {
    for (const [index, view] of this.#views.entries()) view.set(this.#copies[index]);
  }

  /** What is not as it was at first, of all words or of those with the given numbers. */
  contents(numbers: Iterable<number> = this.#slots.keys()): string {
    let text = '';
    let place = 0;
    for (const number of numbers) {
      const slot = this.#slots.get(number);
      const value = slot?.view[slot.index];
      if (slot !== undefined && value !== undefined && value !== slot.first)
        text += String.fromCharCode(place, value & 0xffff, value >>> 16);
      place++;
    }
    return text;
  }

  #words(all: readonly Span[]): number[] {
    const words: number[] = [];
    for (const { buffer, start, end } of all) {
      const base = this.#bases.get(buffer);
      if (base === undefined) continue;
      for (let word = base + (start >> 2); word < base + ((end + 3) >> 2); word++) words.push(word);
    }
    return words;
  }
}
