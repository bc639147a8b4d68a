// A backend domain's mapping of grants through the hypercalls of grants/mapping.ts. Pages appear in a window of
// the domain's own address space. Implements the port of xen/grant-mapper.ts.

import {
  GNTMAP_HOST_MAP,
  GNTMAP_READONLY,
  GNTST_BAD_HANDLE,
  GNTST_NO_SPACE,
  GNTST_OKAY,
  MAPTRACK_HANDLES_PER_FRAME,
} from '../../abi/grant.ts';
import type { Region } from '../../abi/region.ts';
import { XEN_PAGE_SIZE } from '../../abi/xen.ts';
import type { Tracer } from '../../trace.ts';
import type { GrantMapper, GrantPages } from '../../xen/grant-mapper.ts';
import type { DomainId } from '../../xen/ids.ts';
import type { DomainRecord } from './domain-record.ts';
import type { GrantMapping } from './grants/mapping.ts';
import { p2mFrame } from './physmap.ts';
import type { Machine } from './state.ts';

/** Handles of this port are places in the window; Xen's own handles stay inside. */
export class DomainGrantMapper implements GrantMapper {
  readonly #machine: Machine;
  readonly #ops: GrantMapping;
  readonly #domain: DomainRecord;
  readonly #tracer: Tracer;
  /** Free places of the window, the ones used last on top; those never used come after #fresh. */
  readonly #free: number[] = [];
  #fresh = 0;
  /** For each place in use: Xen's handle, the owner and the reference (for the trace), the machine offset. */
  readonly #handles: number[] = [];
  readonly #owners: number[] = [];
  readonly #refs: number[] = [];
  readonly #offsets: number[] = [];
  readonly #places: number;
  #live = 0;

  constructor(machine: Machine, ops: GrantMapping, domain: DomainRecord, tracer: Tracer) {
    this.#machine = machine;
    this.#ops = ops;
    this.#domain = domain;
    this.#tracer = tracer;
    this.#places = domain.maxMaptrackFrames * MAPTRACK_HANDLES_PER_FRAME;
  }

  /** Mappings held now. */
  get live(): number {
    return this.#live;
  }

  mapPages(owner: DomainId, pages: GrantPages, readonly: boolean): number {
    for (let i = 0; i < pages.count; i++) {
      const handle = this.map(owner, pages.refs[i], readonly);
      if (handle < 0) {
        this.#unmapFirst(pages, i);
        return handle;
      }
      pages.handles[i] = handle;
    }
    return GNTST_OKAY;
  }

  unmapPages(pages: GrantPages): number {
    return this.#unmapFirst(pages, pages.count);
  }

  /** Maps one page. Returns its handle, or the negative status with which it is refused. */
  map(owner: DomainId, ref: number, readonly: boolean): number {
    const place = this.#takePlace();
    if (place < 0) return GNTST_NO_SPACE;
    const gfn = this.#domain.window + place;
    const flags = GNTMAP_HOST_MAP | (readonly ? GNTMAP_READONLY : 0);
    const handle = this.#ops.map(this.#domain, gfn, flags, ref, owner);
    if (handle < 0) {
      this.#free.push(place);
      if (this.#tracer.enabled) this.#tracer.mapRefused(this.#domain.id, owner, ref, handle);
      return handle;
    }
    this.#handles[place] = handle;
    this.#owners[place] = owner;
    this.#refs[place] = ref;
    this.#offsets[place] = p2mFrame(this.#domain.physmap.get(gfn)) * XEN_PAGE_SIZE;
    this.#live++;
    if (this.#tracer.enabled) this.#tracer.map(this.#domain.id, owner, ref, place, readonly);
    return place;
  }

  /** Ends one mapping. Returns GNTST_OKAY or a negative status. */
  unmap(place: number): number {
    const handle = this.#handles[place];
    if (handle === undefined || handle < 0) return GNTST_BAD_HANDLE;
    const status = this.#ops.unmap(this.#domain, this.#domain.window + place, handle);
    if (status < 0) return status;
    if (this.#tracer.enabled)
      this.#tracer.unmap(this.#domain.id, this.#owners[place], this.#refs[place], place);
    this.#handles[place] = -1;
    this.#free.push(place);
    this.#live--;
    return status;
  }

  region(_place: number): Region {
    return this.#machine.memory;
  }

  offset(place: number): number {
    return this.#offsets[place];
  }

  /** Guest-physical address, in this domain, at which a mapped page stands. */
  address(place: number): number {
    return (this.#domain.window + place) * XEN_PAGE_SIZE;
  }

  /** Unmaps the first pages of a list, last one first. Returns the last refusal, if there was one. */
  #unmapFirst(pages: GrantPages, count: number): number {
    let result: number = GNTST_OKAY;
    for (let i = count - 1; i >= 0; i--) {
      const status = this.unmap(pages.handles[i]);
      if (status !== GNTST_OKAY) result = status;
    }
    return result;
  }

  #takePlace(): number {
    if (this.#free.length > 0) return this.#free.pop()!;
    return this.#fresh < this.#places ? this.#fresh++ : -1;
  }
}
