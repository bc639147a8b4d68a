// Maps granted pages into this process through /dev/xen/gntdev. Implements the port of xen/grant-mapper.ts; its
// counterpart in the embedded Xen is hosts/model/domain-grant-mapper.ts. After gntdev.ts.
//
// All pages lie in one window of addresses, which is reserved once and mapped to nothing (PROT_NONE): so there is one
// Region with one set of views, and system calls can be given addresses in it. A mapping takes a place of the window
// and, when it ends, gives it back to the reservation in one step, so that nobody else's memory can come there. Places
// are taken in a row as far as possible: pages that follow each other in a guest's ring do so here, too.

import { constants } from 'node:os';
import { GNTST_BAD_HANDLE, GNTST_GENERAL_ERROR, GNTST_NO_SPACE, GNTST_OKAY } from '../../../abi/grant.ts';
import { type Region, regionOver } from '../../../abi/region.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import type { Tracer } from '../../../trace.ts';
import type { GrantMapper } from '../../../xen/grant-mapper.ts';
import type { DomainId } from '../../../xen/ids.ts';
import type { Arena, Scratch } from '../arena.ts';
import { checked, type Libc } from '../libc.ts';
import { type Gntdev, statusOfErrno } from './gntdev.ts';

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
/** What a place has in stead of the device's offset. */
const FREE = -1;
const LOST = -2;

export interface MapperParts {
  readonly libc: Libc;
  readonly arena: Arena;
  readonly gntdev: Gntdev;
  /** The domain that this is. */
  readonly id: DomainId;
  readonly tracer: Tracer;
}

/** The window. Handles are places in it. */
export class GntdevMapper implements GrantMapper {
  readonly #libc: Libc;
  readonly #gntdev: Gntdev;
  readonly #id: DomainId;
  readonly #tracer: Tracer;
  readonly #window: Region;
  /** Where one byte goes that is copied to hear why a mapping was refused. */
  readonly #probe: Scratch;
  /** Where the search for a free place begins. */
  #next = 0;
  /** For each place in use: the device's offset, and the owner and the reference, for the trace. */
  readonly #indexes = new Float64Array(PLACES).fill(FREE);
  readonly #owners: DomainId[] = [];
  readonly #refs: number[] = [];
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

  /** Mappings held now. */
  get live(): number {
    return this.#live;
  }

  map(owner: DomainId, ref: number, readonly: boolean): number {
    const place = this.#findPlace();
    const result = place < 0 ? GNTST_NO_SPACE : this.#mapAt(place, owner, ref, readonly);
    if (result < 0) {
      if (this.#tracer.enabled) this.#tracer.mapRefused(this.#id, owner, ref, result);
      return result;
    }
    this.#next = (place + 1) % PLACES;
    this.#owners[place] = owner;
    this.#refs[place] = ref;
    this.#live++;
    if (this.#tracer.enabled) this.#tracer.map(this.#id, owner, ref, place, readonly);
    return place;
  }

  unmap(place: number): number {
    const index = this.#indexes[place] ?? FREE;
    if (index < 0) return GNTST_BAD_HANDLE;
    this.#live--;
    // What replaces the page unmaps it; the device then forgets it.
    this.#indexes[place] = this.#reserve(place, MAP_FIXED) ? FREE : LOST;
    if (this.#indexes[place] === LOST) this.#libc.munmap(this.#addressOf(place), XEN_PAGE_SIZE);
    this.#gntdev.withdraw(index);
    if (this.#tracer.enabled) this.#tracer.unmap(this.#id, this.#owners[place], this.#refs[place], place);
    return GNTST_OKAY;
  }

  region(_place: number): Region {
    return this.#window;
  }

  offset(place: number): number {
    return place * XEN_PAGE_SIZE;
  }

  /** Ends every mapping and gives the addresses back: nothing of the region may be looked at any more. */
  close(): void {
    for (let place = 0; place < PLACES; place++) this.unmap(place);
    const { address, byteLength } = this.#window;
    checked(this.#libc, 'munmap', this.#libc.munmap(address, byteLength), 'addresses for granted pages');
  }

  /** Returns the place, or the status with which the page is refused. */
  #mapAt(place: number, owner: DomainId, ref: number, readonly: boolean): number {
    const index = this.#gntdev.announce(owner, ref);
    if (index < 0) return index;
    const protection = readonly ? PROT_READ : PROT_READ_WRITE;
    const flags = MAP_SHARED | MAP_FIXED;
    const address = this.#addressOf(place);
    if (this.#libc.mmap(address, XEN_PAGE_SIZE, protection, flags, this.#gntdev.fd, index) >= 0) {
      this.#indexes[place] = index;
      return place;
    }
    const errno = this.#libc.errno();
    this.#gntdev.withdraw(index);
    // Linux has taken the reservation away before it asked the device. Should another thread's memory have come there
    // meanwhile, the place is lost.
    if (!this.#reserve(place, MAP_FIXED_NOREPLACE)) this.#indexes[place] = LOST;
    return this.#whyRefused(owner, ref, errno);
  }

  /**
   * The status of a mapping that mmap has failed to make. The device says EINVAL for whatever Xen answered; Xen judges a
   * copy of one byte by the same rules, and its status comes through. Where the byte may be read, it was the writing
   * that was not granted, or the page is one that cannot be mapped: GNTST_general_error, as Xen says to both.
   */
  #whyRefused(owner: DomainId, ref: number, errno: number): number {
    if (errno !== constants.errno.EINVAL) return statusOfErrno(errno);
    this.#gntdev.putCopy(0, true, owner, ref, 0, 1, this.#probe.address);
    const failed = this.#gntdev.copy(1);
    const status = failed === GNTST_OKAY ? this.#gntdev.copyStatus(0) : failed;
    return status === GNTST_OKAY ? GNTST_GENERAL_ERROR : status;
  }

  /** Puts nothing at a place again. Returns whether that was possible. */
  #reserve(place: number, how: number): boolean {
    const address = this.#addressOf(place);
    const result = this.#libc.mmap(address, XEN_PAGE_SIZE, PROT_NONE, MAP_NOTHING | how, -1, 0);
    return result >= 0;
  }

  #addressOf(place: number): number {
    return this.#window.address + place * XEN_PAGE_SIZE;
  }

  #findPlace(): number {
    for (let tried = 0; tried < PLACES; tried++) {
      const place = (this.#next + tried) % PLACES;
      if (this.#indexes[place] === FREE) return place;
    }
    return -1;
  }
}
