// Grant tables as they lie in memory, and the numbers of the grant table hypercall (public/grant_table.h).

import { struct } from './struct.ts';
import { XEN_PAGE_SIZE } from './xen.ts';

/** A version 1 entry. `frame` is a frame number of the granting guest. */
export const grantEntryV1 = struct('grant_entry_v1', { flags: 'u16', domid: 'u16', frame: 'u32' });
/** Entries in one 4 KiB frame of a version 1 table. */
export const GRANT_ENTRIES_PER_FRAME_V1 = XEN_PAGE_SIZE / grantEntryV1.size;

/** References 0-7 belong to the toolstack (0 console, 1 xenstore). */
export const GRANT_RESERVED_ENTRIES = 8;
/** The domain builder grants the page that a guest shares with the store through it. */
export const GNTTAB_RESERVED_XENSTORE = 1;
/** Frames a table may have unless the guest's configuration says otherwise. */
export const GRANT_DEFAULT_MAX_FRAMES = 64;
/** Mappings a domain may hold: 1024 frames of 256 handles. */
export const MAPTRACK_DEFAULT_HANDLES = 262144;

export const GTF_TYPE_MASK = 3;
export const GTF_INVALID = 0;
export const GTF_PERMIT_ACCESS = 1;
export const GTF_READONLY = 0x4;
/** Set by Xen while the grantee maps the page, in any way. */
export const GTF_READING = 0x8;
/** Set by Xen while the grantee maps the page writable. */
export const GTF_WRITING = 0x10;

export const GNTMAP_DEVICE_MAP = 1;
export const GNTMAP_HOST_MAP = 2;
export const GNTMAP_READONLY = 4;

export const GNTST_OKAY = 0;
export const GNTST_GENERAL_ERROR = -1;
export const GNTST_BAD_DOMAIN = -2;
export const GNTST_BAD_GNTREF = -3;
export const GNTST_BAD_HANDLE = -4;
export const GNTST_BAD_VIRT_ADDR = -5;
export const GNTST_PERMISSION_DENIED = -8;
export const GNTST_BAD_PAGE = -9;
export const GNTST_NO_SPACE = -13;

const statusNames = new Map<number, string>([
  [GNTST_OKAY, 'GNTST_okay'],
  [GNTST_GENERAL_ERROR, 'GNTST_general_error'],
  [GNTST_BAD_DOMAIN, 'GNTST_bad_domain'],
  [GNTST_BAD_GNTREF, 'GNTST_bad_gntref'],
  [GNTST_BAD_HANDLE, 'GNTST_bad_handle'],
  [GNTST_BAD_VIRT_ADDR, 'GNTST_bad_virt_addr'],
  [-6, 'GNTST_bad_dev_addr'],
  [-7, 'GNTST_no_device_space'],
  [GNTST_PERMISSION_DENIED, 'GNTST_permission_denied'],
  [GNTST_BAD_PAGE, 'GNTST_bad_page'],
  [-10, 'GNTST_bad_copy_arg'],
  [-11, 'GNTST_address_too_big'],
  [-12, 'GNTST_eagain'],
  [GNTST_NO_SPACE, 'GNTST_no_space'],
]);

/** The header's name of a status, for messages. */
export function grantStatusName(status: number): string {
  return statusNames.get(status) ?? `GNTST ${status}`;
}
