// A curious backend that copies: through every reference that it is to copy from or to, it tries to map the page and to
// read the bytes beside those that it was told of. It only reads. Beside peeping-mapper.ts, which looks into pages.

import { GNTST_OKAY } from '../abi/grant.ts';
import type { Region } from '../abi/region.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { type GrantCopier, GrantCopies } from '../xen/grant-copier.ts';
import { type GrantMapper, GrantPages } from '../xen/grant-mapper.ts';
import type { DomainId } from '../xen/ids.ts';

/** References that are tried; each costs a few microseconds. */
const REFERENCES = 1024;

/** What became of the attempts. */
export interface Attempts {
  /** References that were tried. */
  readonly references: number;
  /** Those through which more could be read than the backend was to copy. */
  readonly opened: number;
}

/** Copies as `copier` does, and tries for more. */
export class PeepingCopier implements GrantCopier {
  readonly #copier: GrantCopier;
  readonly #mapper: GrantMapper;
  /** A page of this domain's for what is beside. */
  readonly #place: number;
  readonly #beside = new GrantCopies();
  /** The page that is tried. */
  readonly #page = new GrantPages();
  #references = 0;
  #opened = 0;

  /** @param mapper by which pages are mapped, if that is possible; it may look into them */
  constructor(copier: GrantCopier, mapper: GrantMapper) {
    this.#copier = copier;
    this.#mapper = mapper;
    this.#place = copier.takePages(1);
  }

  get attempts(): Attempts {
    return { references: this.#references, opened: this.#opened };
  }

  get region(): Region {
    return this.#copier.region;
  }

  takePages(count: number): number {
    return this.#copier.takePages(count);
  }

  givePages(offset: number, count: number): void {
    this.#copier.givePages(offset, count);
  }

  copyIn(owner: DomainId, copies: GrantCopies): number {
    this.#tryForMore(owner, copies);
    return this.#copier.copyIn(owner, copies);
  }

  copyOut(owner: DomainId, copies: GrantCopies): number {
    this.#tryForMore(owner, copies);
    return this.#copier.copyOut(owner, copies);
  }

  #tryForMore(owner: DomainId, { count, refs, offsets, lengths }: GrantCopies): void {
    for (let i = 0; i < count && this.#references < REFERENCES; i++) {
      this.#references++;
      if (this.#mapPage(owner, refs[i]) || this.#copyBeside(owner, refs[i], offsets[i], lengths[i]))
        this.#opened++;
    }
  }

  #mapPage(owner: DomainId, ref: number): boolean {
    const page = this.#page;
    page.clear();
    page.add(ref);
    if (this.#mapper.mapPages(owner, page, true) !== GNTST_OKAY) return false;
    this.#mapper.unmapPages(page);
    return true;
  }

  /** The byte before, the byte behind, and the whole page. */
  #copyBeside(owner: DomainId, ref: number, offset: number, length: number): boolean {
    const beside = this.#beside;
    beside.clear();
    if (offset > 0) beside.add(ref, offset - 1, 1, this.#place);
    if (offset + length < XEN_PAGE_SIZE) beside.add(ref, offset + length, 1, this.#place);
    if (length < XEN_PAGE_SIZE) beside.add(ref, 0, XEN_PAGE_SIZE, this.#place);
    this.#copier.copyIn(owner, beside);
    for (let i = 0; i < beside.count; i++) if (beside.statuses[i] === GNTST_OKAY) return true;
    return false;
  }
}
