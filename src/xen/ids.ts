// Numbers that must not be mixed up, as nominal types.

import { DOMID_FIRST_RESERVED } from '../abi/xen.ts';

/** A domain's id, below DOMID_FIRST_RESERVED. */
export type DomainId = number & { readonly brand: 'DomainId' };
/** Index of an entry of a domain's grant table. */
export type GrantRef = number & { readonly brand: 'GrantRef' };
/** Number of a 4 KiB frame in a guest's own physical address space (gfn). */
export type FrameNumber = number & { readonly brand: 'FrameNumber' };
/** A domain's end of an event channel. */
export type EventPort = number & { readonly brand: 'EventPort' };

/** Checks and brands a domain id. Throws RangeError on a reserved or impossible one. */
export function domainId(id: number): DomainId {
  if (!Number.isInteger(id) || id < 0 || id >= DOMID_FIRST_RESERVED)
    throw new RangeError(`domain id ${id}: expected 0 to ${DOMID_FIRST_RESERVED - 1}`);
  return id as DomainId;
}
