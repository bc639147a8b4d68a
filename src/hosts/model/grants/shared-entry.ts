// Entries as they lie in frames that the guest shares with Xen, by version, and the bits by which Xen tells the
// guest that an entry is in use: in the entry's flags (version 1), in a table of their own (version 2).
// The guest may write anywhere here at any time: each word is read once, and the copy is what counts.

import {
  GNTST_GENERAL_ERROR,
  GNTST_OKAY,
  GTF_PERMIT_ACCESS,
  GTF_READING,
  GTF_READONLY,
  GTF_SUB_PAGE,
  GTF_TRANSITIVE,
  GTF_TYPE_MASK,
  GTF_WRITING,
} from '../../../abi/grant.ts';
import type { DomainRecord } from '../domain-record.ts';
import { type Machine, PAGE_WORDS } from '../state.ts';
import { PINS_WRITABLE } from './active-entry.ts';

/** A guest that rewrites its entry faster than this is refused (XSA-295). */
const MAX_TRIES = 5;
const DOMID_SHIFT = 16;

/** Index, in 32-bit words of the machine's memory, of the word that holds flags and domid of an entry. */
export function headerWord(domain: DomainRecord, ref: number, version: number): number {
  return version === 1
    ? domain.grantFrame(ref >>> 9) * PAGE_WORDS + (ref & 511) * 2
    : domain.grantFrame(ref >>> 8) * PAGE_WORDS + (ref & 255) * 4;
}

/** Index, in 16-bit words of the machine's memory, of the status of a version 2 entry. */
export function statusWord(domain: DomainRecord, ref: number): number {
  return domain.statusFrame(ref >>> 11) * (PAGE_WORDS * 2) + (ref & 2047);
}

/** Status bits of entries. The active entry of whatever is touched is locked by the caller. */
export class SharedEntries {
  readonly #words: Int32Array;
  readonly #halves: Uint16Array;

  constructor(machine: Machine) {
    this.#words = machine.memory.i32;
    this.#halves = machine.memory.u16;
  }

  /**
   * Marks an entry as being read, and written unless `readonly`, if it permits that to `peer`.
   *
   * @param pins of the active entry: a pinned entry is not looked at again, save for its right to write
   * @param mapping whether the whole page is to be mapped, which parts of pages and what is passed on forbid
   * @returns GNTST_OKAY or GNTST_GENERAL_ERROR, and then no bit has been set
   */
  mark(
    domain: DomainRecord,
    ref: number,
    version: number,
    pins: number,
    peer: number,
    readonly: boolean,
    mapping: boolean,
  ): number {
    const word = headerWord(domain, ref, version);
    return version === 1
      ? this.#markFlags(word, pins, peer, readonly, mapping)
      : this.#markStatus(word, statusWord(domain, ref), pins, peer, readonly, mapping);
  }

  /** The machine frame that an entry grants, read once; 0 when the frame number is none of the domain's. */
  frame(domain: DomainRecord, ref: number, version: number): number {
    const word = headerWord(domain, ref, version);
    if (version === 1) return domain.ownFrame(this.#words[word + 1] >>> 0);
    const low = this.#words[word + 2] >>> 0;
    return this.#words[word + 3] === 0 ? domain.ownFrame(low) : 0;
  }

  /** Clears the bits that no pin holds any more, of which `pins` are left. Nothing if there is no such entry. */
  reduce(domain: DomainRecord, ref: number, pins: number, readonly: boolean): void {
    let clear = pins === 0 ? GTF_READING : 0;
    if (!readonly && (pins & PINS_WRITABLE) === 0) clear |= GTF_WRITING;
    if (clear === 0) return;
    if (domain.grantVersion === 1) Atomics.and(this.#words, headerWord(domain, ref, 1), ~clear);
    else if (domain.hasEntry(ref)) Atomics.and(this.#halves, statusWord(domain, ref), ~clear);
  }

  #markFlags(word: number, pins: number, peer: number, readonly: boolean, mapping: boolean): number {
    const wanted = readonly ? GTF_READING : GTF_READING | GTF_WRITING;
    // Whether this is what stands there now is for the swap to say.
    let entry = this.#words[word];
    for (let tries = 0; tries < MAX_TRIES; tries++) {
      // Flags and domid are one word: they are looked at and changed together.
      if (pins === 0 && !permits(entry, peer, mapping, false)) return GNTST_GENERAL_ERROR;
      if (!readonly && entry & GTF_READONLY) return GNTST_GENERAL_ERROR;
      const found = Atomics.compareExchange(this.#words, word, entry, entry | wanted);
      if (found === entry) return GNTST_OKAY;
      entry = found;
    }
    return GNTST_GENERAL_ERROR;
  }

  /** Bits and flags are words apart: the bits are set first, then the flags are looked at once more. */
  #markStatus(
    word: number,
    status: number,
    pins: number,
    peer: number,
    readonly: boolean,
    mapping: boolean,
  ): number {
    const refuses = (entry: number) =>
      (pins === 0 && !permits(entry, peer, mapping, !mapping)) || (!readonly && (entry & GTF_READONLY) !== 0);
    if (refuses(Atomics.load(this.#words, word))) return GNTST_GENERAL_ERROR;
    Atomics.or(this.#halves, status, readonly ? GTF_READING : GTF_READING | GTF_WRITING);
    if (!refuses(Atomics.load(this.#words, word))) return GNTST_OKAY;
    Atomics.and(this.#halves, status, ~(pins === 0 ? GTF_READING | GTF_WRITING : GTF_WRITING));
    return GNTST_GENERAL_ERROR;
  }
}

/** Whether an entry grants something to `peer` in a way that serves the purpose. */
function permits(entry: number, peer: number, mapping: boolean, transitive: boolean): boolean {
  if (entry >>> DOMID_SHIFT !== peer) return false;
  const type = entry & (mapping ? GTF_TYPE_MASK | GTF_SUB_PAGE : GTF_TYPE_MASK);
  return type === GTF_PERMIT_ACCESS || (transitive && type === GTF_TRANSITIVE);
}
