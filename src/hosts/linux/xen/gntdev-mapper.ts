// Maps granted pages into this process through /dev/xen/gntdev. Implements the port of xen/grant-mapper.ts; its
// counterpart in the embedded Xen is hosts/model/domain-grant-mapper.ts. After gntdev.ts.
//
// All pages lie in one window of addresses, which is reserved once and mapped to nothing (PROT_NONE): so there is one
// Region with one set of views, and system calls can be given addresses in it. A list of pages takes places of the window
// that follow each other, so that a buffer of several pages is one piece of memory here, too. When it ends, it gives them
// back to the reservation in one step, so that nobody else's memory can come there.

import { constants } from 'node:os';
import { GNTST_BAD_HANDLE, GNTST_GENERAL_ERROR, GNTST_NO_SPACE, GNTST_OKAY } from '../../../abi/grant.ts';
import { type Region, regionOver } from '../../../abi/region.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import type { Tracer } from '../../../trace.ts';
import type { GrantMapper, GrantPages } from '../../../xen/grant-mapper.ts';
import type { DomainId } from '../../../xen/ids.ts';
import type { Arena, Scratch } from '../arena.ts';
import { checked, type Libc } from '../libc.ts';
import { type Gntdev, MOST_PAGES, statusOfErrno } from './gntdev.ts';

const PROT_NONE = 0;
const PROT_READ = 1;
const PROT_READ_WRITE = 3;
const MAP_SHARED = 0x1;
const MAP_FIXED = 0x10;
const MAP_FIXED_NOREPLACE = 0x10_0000;
const MAP_NOTHING = 0x4022; // MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE

/**
 * Pages that are mapped at the same time at most. Each is a mapping of its own for Linux, and a process may have 65530
 * of those (vm.max_map_count), counting the gaps between them.
 */
const PLACES = 0x4000;

export interface MapperParts {
  readonly libc: Libc;
  readonly arena: Arena;
  readonly gntdev: Gntdev;
  /** The domain that this is. */
  readonly id: DomainId;
  readonly tracer: Tracer;
}

/** Pages that one call has mapped, which stand in a row. One call ends them, too: Linux is not asked for a part. */
interface Mapping {
  /** The device's offset. */
  readonly index: number;
  readonly place: number;
  readonly count: number;
  readonly owner: DomainId;
  readonly refs: readonly number[];
}

/** What a place belongs to; at one that is lost nothing can be mapped any more. */
type Place = Mapping | 'free' | 'lost';

/** The window. Handles are places in it. */
export class GntdevMapper implements GrantMapper {
  readonly #libc: Libc;
  readonly #gntdev: Gntdev;
  readonly #id: DomainId;
  readonly #tracer: Tracer;
  readonly #window: Region;
  /** Where one byte goes that is copied to hear why a mapping was refused. */
  readonly #probe: Scratch;
  /** Where the search for free places begins. */
  #next = 0;
  readonly #places = new Array<Place>(PLACES).fill('free');
  #live = 0;

  /** Throws SystemError when there are no addresses left. */
  constructor({ libc, arena, gntdev, id, tracer }: MapperParts) {
    this.#libc = libc;
    this.#gntdev = gntdev;
    this.#id = id;
    this.#tracer = tracer;
    this.#probe = arena.take(8);
    const length = PLACES * XEN_PAGE_SIZE;
    const address = libc.mmap(0, length, PROT_NONE, MAP_NOTHING, -1, 0);
    checked(libc, 'mmap', address, 'addresses for granted pages');
    this.#window = regionOver(libc.view(address, length), 0, length, address);
  }

  /** Pages that are mapped now. */
  get live(): number {
    return this.#live;
  }

  /** Maps the pages by as few calls as the free places allow: one, unless they are very many. */
  mapPages(owner: DomainId, pages: GrantPages, readonly: boolean): number {
    let most = MOST_PAGES;
    for (let done = 0; done < pages.count; ) {
      const count = this.#findPlaces(Math.min(most, pages.count - done));
      const status = count === 0 ? GNTST_NO_SPACE : this.#mapNext(owner, pages, done, count, readonly);
      if (status === GNTST_OKAY) done += count;
      // The device does not say which of them it was.
      else if (count > 1) most = 1;
      else {
        if (this.#tracer.enabled) this.#tracer.mapRefused(this.#id, owner, pages.refs[done], status);
        this.#unmapFirst(pages, done);
        return status;
      }
    }
    return GNTST_OKAY;
  }

  unmapPages(pages: GrantPages): number {
    return this.#unmapFirst(pages, pages.count);
  }

  region(_place: number): Region {
    return this.#window;
  }

  offset(place: number): number {
    return place * XEN_PAGE_SIZE;
  }

  /** Ends every mapping and gives the addresses back: nothing of the region may be looked at any more. */
  close(): void {
    for (const place of this.#places) if (typeof place === 'object') this.#unmap(place);
    const { address, byteLength } = this.#window;
    checked(this.#libc, 'munmap', this.#libc.munmap(address, byteLength), 'addresses for granted pages');
  }

  /** Goes to where the most places are free in a row, `wanted` of them if possible. Returns how many. */
  #findPlaces(wanted: number): number {
    let [longest, start, free] = [0, 0, 0];
    for (let tried = 0; tried < PLACES && longest < wanted; tried++) {
      const place = (this.#next + tried) % PLACES;
      if (place === 0) free = 0;
      free = this.#places[place] === 'free' ? free + 1 : 0;
      if (free <= longest) continue;
      longest = free;
      start = place - free + 1;
    }
    this.#next = start;
    return longest;
  }

  /**
   * Maps `count` pages of a list, from number `first` on, at the next places.
   *
   * @returns GNTST_OKAY; or why they are refused: the true status only where it is one page
   */
  #mapNext(owner: DomainId, pages: GrantPages, first: number, count: number, readonly: boolean): number {
    const place = this.#next;
    const index = this.#gntdev.announce(owner, pages.refs, first, count);
    if (index < 0) return index;
    const length = count * XEN_PAGE_SIZE;
    const protection = readonly ? PROT_READ : PROT_READ_WRITE;
    const flags = MAP_SHARED | MAP_FIXED;
    if (this.#libc.mmap(this.#addressOf(place), length, protection, flags, this.#gntdev.fd, index) < 0) {
      const errno = this.#libc.errno();
      this.#gntdev.withdraw(index, count);
      // Linux has taken the reservation away before it asked the device. Should another thread's memory have come
      // there meanwhile, the places are lost.
      if (!this.#reserve(place, count, MAP_FIXED_NOREPLACE)) this.#put('lost', place, count);
      return errno === constants.errno.EINVAL
        ? this.#whyRefused(owner, pages.refs[first])
        : statusOfErrno(errno);
    }
    const refs = pages.refs.slice(first, first + count);
    this.#put({ index, place, count, owner, refs }, place, count);
    this.#next = (place + count) % PLACES;
    this.#live += count;
    for (let i = 0; i < count; i++) {
      pages.handles[first + i] = place + i;
      if (this.#tracer.enabled) this.#tracer.map(this.#id, owner, refs[i], place + i, readonly);
    }
    return GNTST_OKAY;
  }

  /**
   * The status of a page that mmap has failed to map. The device says EINVAL for whatever Xen answered; Xen judges a
   * copy of one byte by the same rules, and its status comes through. Where the byte may be read, it was the writing
   * that was not granted, or the page is one that cannot be mapped: GNTST_general_error, as Xen says to both.
   */
  #whyRefused(owner: DomainId, ref: number): number {
    this.#gntdev.putCopy(0, true, owner, ref, 0, 1, this.#probe.address);
    const failed = this.#gntdev.copy(1);
    const status = failed === GNTST_OKAY ? this.#gntdev.copyStatus(0) : failed;
    return status === GNTST_OKAY ? GNTST_GENERAL_ERROR : status;
  }

  /** Unmaps the first pages of a list, last ones first. Returns GNTST_BAD_HANDLE when one of them is not mapped. */
  #unmapFirst({ handles }: GrantPages, count: number): number {
    let result: number = GNTST_OKAY;
    for (let left = count; left > 0; ) {
      const mapping = this.#places[handles[left - 1]];
      if (typeof mapping === 'object' && handles[left - mapping.count] === mapping.place) {
        this.#unmap(mapping);
        left -= mapping.count;
      } else {
        result = GNTST_BAD_HANDLE;
        left--;
      }
    }
    return result;
  }

  #unmap({ index, place, count, owner, refs }: Mapping): void {
    this.#live -= count;
    // What replaces the pages unmaps them; the device then forgets them.
    const isFree = this.#reserve(place, count, MAP_FIXED);
    if (!isFree) this.#libc.munmap(this.#addressOf(place), count * XEN_PAGE_SIZE);
    this.#put(isFree ? 'free' : 'lost', place, count);
    this.#gntdev.withdraw(index, count);
    for (let i = count - 1; i >= 0 && this.#tracer.enabled; i--)
      this.#tracer.unmap(this.#id, owner, refs[i], place + i);
  }

  #put(what: Place, place: number, count: number): void {
    this.#places.fill(what, place, place + count);
  }

  /** Puts nothing at places again. Returns whether that was possible. */
  #reserve(place: number, count: number, how: number): boolean {
    const length = count * XEN_PAGE_SIZE;
    return this.#libc.mmap(this.#addressOf(place), length, PROT_NONE, MAP_NOTHING | how, -1, 0) >= 0;
  }

  #addressOf(place: number): number {
    return this.#window.address + place * XEN_PAGE_SIZE;
  }
}
