// A guest kernel's own hands on its grant table: entries are written into frames that the domain shares with
// Xen, in Xen's ABI, without a hypercall. Implements the port of xen/grant-table.ts for version 1.

import {
  GRANT_ENTRIES_PER_FRAME_V1,
  GTF_PERMIT_ACCESS,
  GTF_READING,
  GTF_READONLY,
  GTF_WRITING,
} from '../../abi/grant.ts';
import { XEN_PAGE_SIZE } from '../../abi/xen.ts';
import type { GrantTable } from '../../xen/grant-table.ts';
import type { DomainId, FrameNumber, GrantRef } from '../../xen/ids.ts';
import type { DomainRecord, Domains } from './domains.ts';
import type { Machine } from './state.ts';

const IN_USE = GTF_READING | GTF_WRITING;

export class DomainGrantTable implements GrantTable {
  readonly #domains: Domains;
  readonly #domain: DomainRecord;
  readonly #words: Int32Array;
  /** Word index at which each frame of the table starts. */
  readonly #frames: number[] = [];

  constructor(machine: Machine, domains: Domains, domain: DomainRecord) {
    this.#domains = domains;
    this.#domain = domain;
    this.#words = machine.memory.i32;
    if (!this.grow(GRANT_ENTRIES_PER_FRAME_V1))
      throw new RangeError(`the machine has no memory left for the grant table of domain ${domain.id}`);
  }

  get entries(): number {
    return this.#frames.length * GRANT_ENTRIES_PER_FRAME_V1;
  }

  get maxEntries(): number {
    return this.#domain.maxGrantFrames * GRANT_ENTRIES_PER_FRAME_V1;
  }

  /** GNTTABOP_setup_table. */
  grow(entries: number): boolean {
    const frames = Math.ceil(entries / GRANT_ENTRIES_PER_FRAME_V1);
    if (!this.#domains.growGrantTable(this.#domain, frames)) return false;
    for (let index = this.#frames.length; index < frames; index++)
      this.#frames.push((this.#domain.grantFrame(index) * XEN_PAGE_SIZE) / 4);
    return true;
  }

  grant(first: GrantRef, count: number, peer: DomainId, frame: FrameNumber, readonly: boolean): void {
    const flags = GTF_PERMIT_ACCESS | (readonly ? GTF_READONLY : 0) | (peer << 16);
    for (let page = 0; page < count; page++) {
      const word = this.#wordOf(first + page);
      this.#words[word + 1] = frame + page;
      // Flags last: they make the entry valid.
      Atomics.store(this.#words, word, flags);
    }
  }

  revoke(first: GrantRef, count: number): number {
    let busy = 0;
    for (let page = 0; page < count; page++) {
      if (!this.#end(this.#wordOf(first + page))) busy++;
    }
    return busy;
  }

  isFree(ref: GrantRef): boolean {
    return Atomics.load(this.#words, this.#wordOf(ref)) === 0;
  }

  /** One entry, by compare-and-swap: Xen may be marking it as mapped at this moment. */
  #end(word: number): boolean {
    for (;;) {
      const entry = Atomics.load(this.#words, word);
      if (entry & IN_USE) return false;
      if (Atomics.compareExchange(this.#words, word, entry, 0) === entry) return true;
    }
  }

  #wordOf(ref: number): number {
    return this.#frames[ref >>> 9] + (ref & (GRANT_ENTRIES_PER_FRAME_V1 - 1)) * 2;
  }
}
