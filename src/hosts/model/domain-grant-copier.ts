// A backend domain's copies from and to grants (GNTTABOP_copy, grants/copying.ts), one hypercall for each list.
// Implements the port of xen/grant-copier.ts; its sibling for whole pages is domain-grant-mapper.ts.

import { GNTCOPY_DEST_GREF, GNTCOPY_SOURCE_GREF } from '../../abi/grant-table-op.ts';
import { GNTST_OKAY } from '../../abi/grant.ts';
import type { Region } from '../../abi/region.ts';
import { DOMID_SELF, XEN_PAGE_SIZE } from '../../abi/xen.ts';
import type { GuestMemory } from '../../dma/guest-memory.ts';
import type { Tracer } from '../../trace.ts';
import type { GrantCopier, GrantCopies } from '../../xen/grant-copier.ts';
import type { DomainId } from '../../xen/ids.ts';
import type { DomainRecord } from './domain-record.ts';
import { type CopyEnd, type GrantCopying, patientCopy } from './grants/copying.ts';
import { p2mFrame } from './physmap.ts';

/** Nobody else runs on this processor between two elements. */
const goOn = () => undefined;

export class DomainGrantCopier implements GrantCopier {
  readonly #ops: GrantCopying;
  readonly #domain: DomainRecord;
  readonly #memory: GuestMemory;
  readonly #tracer: Tracer;
  readonly #granted: CopyEnd = { domain: 0, page: 0, offset: 0 };
  readonly #own: CopyEnd = { domain: DOMID_SELF, page: 0, offset: 0 };

  /** @param memory the domain's own, of which pages are taken */
  constructor(ops: GrantCopying, domain: DomainRecord, memory: GuestMemory, tracer: Tracer) {
    this.#ops = ops;
    this.#domain = domain;
    this.#memory = memory;
    this.#tracer = tracer;
  }

  get region(): Region {
    return this.#memory.region;
  }

  takePages(count: number): number {
    const address = this.#memory.allocatePages(count);
    return address === undefined ? -1 : address - this.#memory.base;
  }

  givePages(offset: number, count: number): void {
    this.#memory.freePages(this.#memory.base + offset, count);
  }

  copyIn(owner: DomainId, copies: GrantCopies): number {
    return this.#copyAll(owner, copies, true);
  }

  copyOut(owner: DomainId, copies: GrantCopies): number {
    return this.#copyAll(owner, copies, false);
  }

  #copyAll(owner: DomainId, copies: GrantCopies, inward: boolean): number {
    let result = GNTST_OKAY;
    for (let i = 0; i < copies.count; i++) {
      const status = this.#copyOne(owner, copies, i, inward);
      copies.statuses[i] = status;
      if (status === GNTST_OKAY) continue;
      if (this.#tracer.enabled) this.#tracer.mapRefused(this.#domain.id, owner, copies.refs[i], status);
      if (result === GNTST_OKAY) result = status;
    }
    return result;
  }

  /** One element, in as many copies as it touches pages here: each side of a copy lies in one page. */
  #copyOne(owner: DomainId, { refs, offsets, lengths, places }: GrantCopies, i: number, inward: boolean) {
    const [granted, own] = [this.#granted, this.#own];
    granted.domain = owner;
    granted.page = refs[i];
    let status: number = GNTST_OKAY;
    for (let done = 0; done < lengths[i] && status === GNTST_OKAY; ) {
      const place = places[i] + done;
      granted.offset = offsets[i] + done;
      own.page = this.#frameNumber(place);
      own.offset = place % XEN_PAGE_SIZE;
      const length = Math.min(lengths[i] - done, XEN_PAGE_SIZE - own.offset);
      status = inward
        ? patientCopy(this.#ops, this.#domain, granted, own, length, GNTCOPY_SOURCE_GREF, goOn)
        : patientCopy(this.#ops, this.#domain, own, granted, length, GNTCOPY_DEST_GREF, goOn);
      done += length;
    }
    return status;
  }

  /** What the domain calls the frame of a place in its memory: a PV guest knows frames by the machine's numbers. */
  #frameNumber(place: number): number {
    const gfn = Math.floor((this.#memory.base + place) / XEN_PAGE_SIZE);
    return this.#domain.translated ? gfn : p2mFrame(this.#domain.physmap.get(gfn));
  }
}
