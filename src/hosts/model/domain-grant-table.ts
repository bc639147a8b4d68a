// A guest kernel's own hands on its grant table: entries are written into frames that the domain shares with Xen,
// in Xen's ABI, without a hypercall. Implements the port of xen/grant-table.ts for both versions.

import {
  GRANT_ENTRIES_PER_FRAME_V1,
  GRANT_ENTRIES_PER_FRAME_V2,
  GTF_PERMIT_ACCESS,
  GTF_READING,
  GTF_READONLY,
  GTF_SUB_PAGE,
  GTF_WRITING,
} from '../../abi/grant.ts';
import { assert } from '../../errors.ts';
import type { GrantTable } from '../../xen/grant-table.ts';
import type { DomainId, FrameNumber, GrantRef } from '../../xen/ids.ts';
import type { DomainRecord } from './domain-record.ts';
import { headerWord, statusWord } from './grants/shared-entry.ts';
import { placeTableFrame } from './grants/table-ops.ts';
import { growGrantTable } from './grants/table-size.ts';
import { setVersion } from './grants/version.ts';
import { p2mFrame } from './physmap.ts';
import { type Machine, PAGE_WORDS } from './state.ts';

const IN_USE = GTF_READING | GTF_WRITING;

export class DomainGrantTable implements GrantTable {
  readonly #machine: Machine;
  readonly #domain: DomainRecord;
  readonly #words: Int32Array;
  readonly #halves: Uint16Array;
  /** Word index at which each frame of the table starts. */
  readonly #frames: number[] = [];
  #version: number;

  constructor(machine: Machine, domain: DomainRecord) {
    this.#machine = machine;
    this.#domain = domain;
    this.#words = machine.memory.i32;
    this.#halves = machine.memory.u16;
    this.#version = domain.grantVersion;
    if (!this.grow(this.#perFrame))
      throw new RangeError(`the machine has no memory left for the grant table of domain ${domain.id}`);
  }

  get entries(): number {
    return this.#frames.length * this.#perFrame;
  }

  get maxEntries(): number {
    return this.#domain.maxGrantFrames * this.#perFrame;
  }

  get grantsParts(): boolean {
    return this.#version === 2;
  }

  /** Version of the table, 1 or 2. */
  get version(): number {
    return this.#version;
  }

  /** Switches to the other version: all that was granted is forgotten. Returns 0 or a negative errno. */
  setVersion(version: number): number {
    const result = setVersion(this.#machine, this.#domain, version);
    this.#version = this.#domain.grantVersion;
    return result;
  }

  /** GNTTABOP_setup_table, then XENMEM_add_to_physmap to where this guest's address map has the table. */
  grow(entries: number): boolean {
    const frames = Math.ceil(entries / this.#perFrame);
    if (!growGrantTable(this.#machine, this.#domain, frames)) return false;
    for (let index = this.#frames.length; index < frames; index++) {
      const gfn = this.#domain.map.grantTable + index;
      if (placeTableFrame(this.#machine, this.#domain, index, false, gfn) < 0) return false;
      this.#frames.push(this.#domain.grantFrame(index) * PAGE_WORDS);
    }
    return true;
  }

  grant(first: GrantRef, count: number, peer: DomainId, frame: FrameNumber, readonly: boolean): void {
    const flags = GTF_PERMIT_ACCESS | (readonly ? GTF_READONLY : 0);
    for (let page = 0; page < count; page++) {
      const word = this.#wordOf(first + page);
      if (this.#version === 1) this.#words[word + 1] = this.#granted(frame + page);
      else {
        this.#words[word + 2] = this.#granted(frame + page);
        this.#words[word + 3] = 0;
      }
      this.#publish(word, flags, peer);
    }
  }

  grantPart(
    ref: GrantRef,
    peer: DomainId,
    frame: FrameNumber,
    offset: number,
    length: number,
    readonly: boolean,
  ): void {
    assert(this.#version === 2, 'parts of pages are granted through tables of version 2', this.#version, 2);
    const word = this.#wordOf(ref);
    this.#words[word + 1] = offset | (length << 16);
    this.#words[word + 2] = this.#granted(frame);
    this.#words[word + 3] = 0;
    this.#publish(word, GTF_PERMIT_ACCESS | GTF_SUB_PAGE | (readonly ? GTF_READONLY : 0), peer);
  }

  revoke(first: GrantRef, count: number): number {
    let busy = 0;
    for (let page = 0; page < count; page++) {
      const ref = first + page;
      if (!(this.#version === 1 ? this.#endV1(ref) : this.#endV2(ref))) busy++;
    }
    return busy;
  }

  isFree(ref: GrantRef): boolean {
    return Atomics.load(this.#words, this.#wordOf(ref)) === 0 && (this.#version === 1 || !this.#inUse(ref));
  }

  /** Flags last: they make the entry valid. */
  #publish(word: number, flags: number, peer: DomainId): void {
    Atomics.store(this.#words, word, flags | (peer << 16));
  }

  /** One entry, by compare-and-swap: Xen may be marking it as mapped at this moment. */
  #endV1(ref: number): boolean {
    const word = this.#wordOf(ref);
    for (;;) {
      const entry = Atomics.load(this.#words, word);
      if (entry & IN_USE) return false;
      if (Atomics.compareExchange(this.#words, word, entry, 0) === entry) return true;
    }
  }

  /** Nobody can begin to use an entry without flags; who does use it is seen in its status. */
  #endV2(ref: number): boolean {
    Atomics.store(this.#words, this.#wordOf(ref), 0);
    return !this.#inUse(ref);
  }

  #inUse(ref: number): boolean {
    return (Atomics.load(this.#halves, statusWord(this.#domain, ref)) & IN_USE) !== 0;
  }

  /** What an entry calls one of the guest's frames: a PV guest knows its frames by the machine's numbers. */
  #granted(frame: number): number {
    return this.#domain.translated ? frame : p2mFrame(this.#domain.physmap.get(frame));
  }

  #wordOf(ref: number): number {
    return this.#version === 1
      ? this.#frames[ref >>> 9] + (ref & (GRANT_ENTRIES_PER_FRAME_V1 - 1)) * 2
      : headerWord(this.#domain, ref, 2);
  }

  get #perFrame(): number {
    return this.#version === 1 ? GRANT_ENTRIES_PER_FRAME_V1 : GRANT_ENTRIES_PER_FRAME_V2;
  }
}
