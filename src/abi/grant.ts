// Grant tables as they lie in memory, flags of mappings, and statuses (public/grant_table.h). The hypercall and
// its arguments are in grant-table-op.ts.

import { struct } from './struct.ts';
import { XEN_PAGE_SIZE } from './xen.ts';

/** A version 1 entry. `frame` is a frame number of the granting guest. */
export const grantEntryV1 = struct('grant_entry_v1', { flags: 'u16', domid: 'u16', frame: 'u32' });
/** Entries in one 4 KiB frame of a version 1 table. */
export const GRANT_ENTRIES_PER_FRAME_V1 = XEN_PAGE_SIZE / grantEntryV1.size;

/** A version 2 entry that grants a whole page. `frame` is 64 bits wide, as two halves. */
export const grantEntryV2Full = struct('grant_entry_v2 full_page', {
  flags: 'u16',
  domid: 'u16',
  _pad0: 'u32',
  frame: 'addr64',
});
/** The same entry where it grants `length` bytes from `page_off`; good for copies only. */
export const grantEntryV2Sub = struct('grant_entry_v2 sub_page', {
  flags: 'u16',
  domid: 'u16',
  page_off: 'u16',
  length: 'u16',
  frame: 'addr64',
});
/** The same entry where it passes on what another domain granted; good for copies only. */
export const grantEntryV2Transitive = struct('grant_entry_v2 transitive', {
  flags: 'u16',
  domid: 'u16',
  trans_domid: 'u16',
  _pad0: 'u16',
  gref: 'u32',
  _pad1: 'u32',
});
/** Entries in one 4 KiB frame of a version 2 table, and statuses (u16 each) in one frame of those. */
export const GRANT_ENTRIES_PER_FRAME_V2 = XEN_PAGE_SIZE / grantEntryV2Full.size;
export const GRANT_STATUSES_PER_FRAME = XEN_PAGE_SIZE / 2;

/** References 0-7 belong to the toolstack (0 console, 1 xenstore). */
export const GRANT_RESERVED_ENTRIES = 8;
/** The domain builder grants the page that a guest shares with the store through it. */
export const GNTTAB_RESERVED_XENSTORE = 1;
/** Frames a table may have unless the guest's configuration says otherwise. */
export const GRANT_DEFAULT_MAX_FRAMES = 64;
/** Frames of the table of what a domain maps, and mappings that each has room for. */
export const MAPTRACK_DEFAULT_FRAMES = 1024;
export const MAPTRACK_HANDLES_PER_FRAME = 256;

export const GTF_TYPE_MASK = 3;
export const GTF_INVALID = 0;
export const GTF_PERMIT_ACCESS = 1;
export const GTF_ACCEPT_TRANSFER = 2;
/** Version 2: what another domain granted to this one is passed on. */
export const GTF_TRANSITIVE = 3;
export const GTF_READONLY = 0x4;
/** Set by Xen while the grantee maps the page, in any way. */
export const GTF_READING = 0x8;
/** Set by Xen while the grantee maps the page writable. */
export const GTF_WRITING = 0x10;
/** How mappings are to be cached; of no meaning to guests with an address space of their own. */
export const GTF_PWT = 0x20;
export const GTF_PCD = 0x40;
export const GTF_PAT = 0x80;
/** Version 2: only part of the page is granted, and only for copies. */
export const GTF_SUB_PAGE = 0x100;

export const GNTMAP_DEVICE_MAP = 1;
export const GNTMAP_HOST_MAP = 2;
export const GNTMAP_READONLY = 4;
export const GNTMAP_APPLICATION_MAP = 8;
export const GNTMAP_CONTAINS_PTE = 16;

export const GNTST_OKAY = 0;
export const GNTST_GENERAL_ERROR = -1;
export const GNTST_BAD_DOMAIN = -2;
export const GNTST_BAD_GNTREF = -3;
export const GNTST_BAD_HANDLE = -4;
export const GNTST_BAD_VIRT_ADDR = -5;
export const GNTST_BAD_DEV_ADDR = -6;
export const GNTST_NO_DEVICE_SPACE = -7;
export const GNTST_PERMISSION_DENIED = -8;
export const GNTST_BAD_PAGE = -9;
export const GNTST_BAD_COPY_ARG = -10;
export const GNTST_ADDRESS_TOO_BIG = -11;
export const GNTST_EAGAIN = -12;
export const GNTST_NO_SPACE = -13;

const statusNames = new Map<number, string>([
  [GNTST_OKAY, 'GNTST_okay'],
  [GNTST_GENERAL_ERROR, 'GNTST_general_error'],
  [GNTST_BAD_DOMAIN, 'GNTST_bad_domain'],
  [GNTST_BAD_GNTREF, 'GNTST_bad_gntref'],
  [GNTST_BAD_HANDLE, 'GNTST_bad_handle'],
  [GNTST_BAD_VIRT_ADDR, 'GNTST_bad_virt_addr'],
  [GNTST_BAD_DEV_ADDR, 'GNTST_bad_dev_addr'],
  [GNTST_NO_DEVICE_SPACE, 'GNTST_no_device_space'],
  [GNTST_PERMISSION_DENIED, 'GNTST_permission_denied'],
  [GNTST_BAD_PAGE, 'GNTST_bad_page'],
  [GNTST_BAD_COPY_ARG, 'GNTST_bad_copy_arg'],
  [GNTST_ADDRESS_TOO_BIG, 'GNTST_address_too_big'],
  [GNTST_EAGAIN, 'GNTST_eagain'],
  [GNTST_NO_SPACE, 'GNTST_no_space'],
]);

/** The header's name of a status, for messages. */
export function grantStatusName(status: number): string {
  return statusNames.get(status) ?? `GNTST ${status}`;
}
