// The exposure modes by name: what a device is configured with, and the DMA operations that it means.
// Used by machine/guest-domain.ts; each mode is a file of its own, see buffer-sharing.ts.

import { AutoSharing, DIRECT_FROM } from './auto-sharing.ts';
import { KEEP_FOR_A_WHILE, KEEP_NOTHING, type Retention } from './bounce-pages.ts';
import { BounceSharing } from './bounce-sharing.ts';
import type { BufferSharing } from './buffer-sharing.ts';
import type { GrantTable } from '../xen/grant-table.ts';
import { CopySharing } from './copy-sharing.ts';
import { DirectSharing } from './direct-sharing.ts';
import { GrantDma } from './grant-dma.ts';
import type { Grants } from './grants.ts';

/** How a device's buffers are exposed to its backend. */
export const EXPOSURE_MODES = ['direct', 'bounce', 'persistent', 'copy', 'auto'] as const;
export type ExposureMode = (typeof EXPOSURE_MODES)[number];

/** What some modes can be told. */
export interface ExposureOptions {
  /** In `persistent` and `auto`: how long grants outlive their use (default KEEP_FOR_A_WHILE). */
  readonly retention?: Retention;
  /** In `auto`: bytes from which on whole pages are granted themselves (default DIRECT_FROM). */
  readonly directFrom?: number;
}

/** What becomes of `mode` with this table: `copy` needs grants of parts of pages, and is `bounce` without. */
export function possibleMode(mode: ExposureMode, table: GrantTable): ExposureMode {
  return mode === 'copy' && !table.grantsParts ? 'bounce' : mode;
}

/** @param device the device's number in trace events */
function sharingOf(
  mode: ExposureMode,
  grants: Grants,
  device: number,
  { retention = KEEP_FOR_A_WHILE, directFrom = DIRECT_FROM }: ExposureOptions,
): BufferSharing {
  switch (mode) {
    case 'direct':
      return new DirectSharing(grants);
    case 'bounce':
      return new BounceSharing(grants, device, KEEP_NOTHING);
    case 'persistent':
      return new BounceSharing(grants, device, retention);
    case 'copy':
      return new CopySharing(grants);
    case 'auto':
      return new AutoSharing(grants, device, retention, directFrom);
  }
}

/** The DMA operations of a device in one mode, or in the one that is possible in its place. */
export function grantDma(
  mode: ExposureMode,
  grants: Grants,
  device: number,
  options: ExposureOptions = {},
): GrantDma {
  const possible = possibleMode(mode, grants.domain.table);
  return new GrantDma(grants, device, sharingOf(possible, grants, device, options));
}
