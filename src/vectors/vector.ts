// The form of conformance vectors: what an implementation is given, and what it has to answer. Written to vectors/
// as JSON by scripts/vectors.mjs; docs/vectors.md tells other projects how to run them.

/** One case. Addresses and sizes of 64 bits are strings, "0x8000000000044aa8"; other numbers are numbers. */
export interface Vector<Input, Expected, Wrong = Expected> {
  /** Unique in its group; never given another meaning. */
  readonly id: string;
  /** Where the expectation comes from, in words. */
  readonly source: string;
  readonly input: Input;
  readonly expected: Expected;
  /** What known defects answer instead, so that an implementation can tell which one it has. */
  readonly wrong?: readonly WrongAnswer<Wrong>[];
}

/** The answer of one defect. */
export interface WrongAnswer<Wrong> {
  /** Who answers so. */
  readonly by: string;
  readonly answer: Wrong;
}

/** What an implementation has to say to input that means nothing; the word is a code, not a message. */
export interface Refused<Fault extends string = string> {
  readonly refused: Fault;
}

/** A file of vectors. */
export interface VectorGroup<V> {
  /** Its name, and that of the file. */
  readonly group: string;
  /** Of this form: 1. Another number says that a reader of this one may misunderstand it. */
  readonly format: 1;
  /** What the inputs and the answers mean. */
  readonly about: string;
  readonly vectors: readonly V[];
}

/** A number of 64 bits as it stands in vectors: all 16 digits. */
export const hex64 = (value: bigint): string => `0x${value.toString(16).padStart(16, '0')}`;
