// Numbers of Xen's public ABI that every part of it shares: pages and domain ids (public/xen.h).

/** Xen's page and a grant's unit, whatever page size the guest's kernel uses. */
export const XEN_PAGE_SIZE = 4096;
export const XEN_PAGE_SHIFT = 12;

/** First of the ids that name no ordinary domain. */
export const DOMID_FIRST_RESERVED = 0x7ff0;
/** "The caller", in hypercall arguments. */
export const DOMID_SELF = 0x7ff0;
/** No domain. */
export const DOMID_INVALID = 0x7ff4;
