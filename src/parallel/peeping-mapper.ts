// A curious backend: it serves as told, and looks around in every page it is given. What it finds is read
// through its own address space, so it is what a real one could read, and not a computation.

import type { AddressSpace } from '../hosts/model/address-space.ts';
import type { DomainGrantMapper } from '../hosts/model/domain-grant-mapper.ts';
import { GNTST_OKAY } from '../abi/grant.ts';
import type { Region } from '../abi/region.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import type { GrantMapper, GrantPages } from '../xen/grant-mapper.ts';
import type { DomainId } from '../xen/ids.ts';
import type { Attempts } from './peeping-copier.ts';
import { SECRET_MARK } from './secrets.ts';

/** Pages that are looked into; each costs about a microsecond. */
const PAGES = 4096;
/** Bytes of a sample. */
const SAMPLE = 64;

/** What was found. */
export interface Glimpse {
  readonly pagesSeen: number;
  /** Pages that held secrets of the guest. */
  readonly pagesWithSecrets: number;
  /** The first find: which reference it came through, where in the page, and the bytes from there on. */
  readonly sample: { readonly ref: number; readonly offset: number; readonly bytes: Uint8Array } | undefined;
  /** What a backend that copies has tried besides. */
  readonly attempts?: Attempts;
}

/** Maps as `mapper` does, and keeps what it sees. */
export class PeepingMapper implements GrantMapper {
  readonly #mapper: DomainGrantMapper;
  readonly #addressSpace: AddressSpace;
  #pagesSeen = 0;
  #pagesWithSecrets = 0;
  #sample: Glimpse['sample'];

  constructor(mapper: DomainGrantMapper, addressSpace: AddressSpace) {
    this.#mapper = mapper;
    this.#addressSpace = addressSpace;
  }

  get glimpse(): Glimpse {
    return { pagesSeen: this.#pagesSeen, pagesWithSecrets: this.#pagesWithSecrets, sample: this.#sample };
  }

  mapPages(owner: DomainId, pages: GrantPages, readonly: boolean): number {
    const status = this.#mapper.mapPages(owner, pages, readonly);
    if (status !== GNTST_OKAY) return status;
    for (let i = 0; i < pages.count && this.#pagesSeen < PAGES; i++)
      this.#look(pages.handles[i], pages.refs[i]);
    return status;
  }

  unmapPages(pages: GrantPages): number {
    return this.#mapper.unmapPages(pages);
  }

  region(handle: number): Region {
    return this.#mapper.region(handle);
  }

  offset(handle: number): number {
    return this.#mapper.offset(handle);
  }

  #look(handle: number, ref: number): void {
    const page = Buffer.from(this.#addressSpace.read(this.#mapper.address(handle), XEN_PAGE_SIZE).buffer);
    this.#pagesSeen++;
    const offset = page.indexOf(SECRET_MARK);
    if (offset < 0) return;
    this.#pagesWithSecrets++;
    this.#sample ??= { ref, offset, bytes: Uint8Array.from(page.subarray(offset, offset + SAMPLE)) };
  }
}
