// The contents that a disk may have after a power cut: what is stable, and of the volatile writes any part, sector by
// sector, in any order. After write-log.ts. docs/crash-consistency.md says what they are checked against.

import type { VolatileWrite, WriteLog } from './write-log.ts';

/** Most volatile writes whose every subset is looked at, whole, where there are too many torn states for all. */
const MOST_WHOLE = 8;

/** How many states of one power cut are looked at. */
export interface CutLimits {
  /** All of them, if they are no more than this. */
  readonly exhaustive: number;
  /** Otherwise so many by chance, beside the subsets of whole writes. */
  readonly samples: number;
  /** Numbers from 0 up to 1, which decide what chance is. */
  readonly random: () => number;
}

/** What one block of the disk may hold after the cut. */
interface Doubt {
  /** Bytes of the disk. */
  readonly offset: number;
  /** First what is stable, then what it held after each volatile write, in their order. */
  readonly versions: Uint8Array[];
  /** The write of each version, in `WriteLog.volatile`; -1 for the stable one. */
  readonly writes: number[];
}

/** One state of a disk after a power cut. The generator changes it at its next step. */
export class CrashState {
  /** Which version each of the cut's blocks in doubt has. */
  readonly chosen: number[];
  readonly #cut: PowerCut;

  constructor(cut: PowerCut) {
    this.#cut = cut;
    this.chosen = new Array<number>(cut.doubts.length).fill(0);
  }

  /** The bytes of a block in doubt, by its place in the cut's `doubts`. */
  block(index: number): Uint8Array {
    return this.#cut.doubts[index].versions[this.chosen[index]];
  }

  /** The whole disk. */
  image(): Uint8Array {
    const image = this.#cut.stable.slice();
    for (const [index, { offset }] of this.#cut.doubts.entries()) image.set(this.block(index), offset);
    return image;
  }

  /** Which writes have reached the disk and where, for people. */
  toString(): string {
    return this.#cut.doubts
      .map(({ offset, writes }, index) => {
        const write = writes[this.chosen[index]];
        return `${offset}: ${write < 0 ? 'stable' : `write ${this.#cut.writes[write].begun}`}`;
      })
      .join(', ');
  }
}

/** A power cut at this moment of a log. Valid until its next event. */
export class PowerCut {
  readonly stable: Uint8Array;
  readonly writes: readonly VolatileWrite[];
  /** Blocks that may hold one thing or another, by offset. */
  readonly doubts: readonly Doubt[];
  /** All states there are. */
  readonly count: number;

  /**
   * @param block bytes that the disk writes as a whole: 512 is the worst that virtio allows, disks with larger sectors
   *   leave fewer states
   */
  constructor(log: WriteLog, block: 512 | 4096 = 512) {
    this.stable = log.stable;
    this.writes = log.volatile;
    this.doubts = doubtsOf(this.stable, this.writes, block);
    this.count = this.doubts.reduce((product, { versions }) => product * versions.length, 1);
  }

  /** States of this cut, each once: all, or as many as `limits` allows. Each is the same object, changed. */
  *states(limits: CutLimits): Generator<CrashState, void, undefined> {
    if (this.count <= limits.exhaustive) yield* this.#all();
    else yield* this.#some(limits);
  }

  *#all(): Generator<CrashState, void, undefined> {
    const state = new CrashState(this);
    do yield state;
    while (this.#countOn(state.chosen));
  }

  /** As an odometer does. Returns false after the last. */
  #countOn(chosen: number[]): boolean {
    for (const [index, { versions }] of this.doubts.entries()) {
      if (++chosen[index] < versions.length) return true;
      chosen[index] = 0;
    }
    return false;
  }

  *#some({ samples, random }: CutLimits): Generator<CrashState, void, undefined> {
    const state = new CrashState(this);
    const seen = new Set<string>();
    const isNew = () => seen.size < seen.add(state.chosen.join()).size;
    for (const reached of this.#subsets(random, samples)) {
      for (const [index, { writes }] of this.doubts.entries())
        state.chosen[index] = writes.findLastIndex((write) => write < 0 || reached(write));
      if (isNew()) yield state;
    }
    for (let sample = 0; sample < samples; sample++) {
      for (const [index, { versions }] of this.doubts.entries())
        state.chosen[index] = Math.floor(random() * versions.length);
      if (isNew()) yield state;
    }
  }

  /** Subsets of whole writes: all, or as many as asked for; none, all, each alone and all but each among them. */
  *#subsets(random: () => number, samples: number): Generator<(write: number) => boolean> {
    const { length } = this.writes;
    if (length <= MOST_WHOLE) {
      for (let bits = 0; bits < 2 ** length; bits++) yield (write) => ((bits >> write) & 1) === 1;
      return;
    }
    yield () => false;
    yield () => true;
    for (let one = 0; one < length; one++) {
      yield (write) => write === one;
      yield (write) => write !== one;
    }
    for (let sample = 0; sample < samples; sample++) {
      const reached = Array.from({ length }, () => random() < 0.5);
      yield (write) => reached[write];
    }
  }
}

function doubtsOf(stable: Uint8Array, writes: readonly VolatileWrite[], block: number): Doubt[] {
  const doubts = new Map<number, Doubt>();
  for (const [index, write] of writes.entries()) {
    const end = write.offset + write.bytes.length;
    for (let offset = write.offset - (write.offset % block); offset < end; offset += block) {
      const doubt = doubts.get(offset) ?? {
        offset,
        versions: [stable.subarray(offset, offset + block)],
        writes: [-1],
      };
      doubts.set(offset, doubt);
      doubt.versions.push(overlaid(doubt.versions[doubt.versions.length - 1], offset, write));
      doubt.writes.push(index);
    }
  }
  return [...doubts.values()].sort((one, other) => one.offset - other.offset);
}

/** A block at `offset` after a write to some of it. */
function overlaid(before: Uint8Array, offset: number, { offset: start, bytes }: VolatileWrite): Uint8Array {
  const from = offset - start;
  if (from >= 0 && from + before.length <= bytes.length) return bytes.subarray(from, from + before.length);
  const after = before.slice();
  const end = Math.min(bytes.length, from + before.length);
  after.set(bytes.subarray(Math.max(from, 0), end), Math.max(-from, 0));
  return after;
}
