// The exposure modes by name: what a device is configured with, and the DMA operations that it means.
// Used by machine/guest-domain.ts; each mode is a file of its own, see buffer-sharing.ts.

import { BounceSharing } from './bounce-sharing.ts';
import type { BufferSharing } from './buffer-sharing.ts';
import type { GrantTable } from '../xen/grant-table.ts';
import { CopySharing } from './copy-sharing.ts';
import { DirectSharing } from './direct-sharing.ts';
import { GrantDma } from './grant-dma.ts';
import type { Grants } from './grants.ts';

/** How a device's buffers are exposed to its backend, least private first. */
export const EXPOSURE_MODES = ['direct', 'bounce', 'copy'] as const;
export type ExposureMode = (typeof EXPOSURE_MODES)[number];

/** What becomes of `mode` with this table: `copy` needs grants of parts of pages, and is `bounce` without. */
export function possibleMode(mode: ExposureMode, table: GrantTable): ExposureMode {
  return mode === 'copy' && !table.grantsParts ? 'bounce' : mode;
}

/** @param device the device's number in trace events */
function sharingOf(mode: ExposureMode, grants: Grants, device: number): BufferSharing {
  if (mode === 'direct') return new DirectSharing(grants);
  if (mode === 'copy') return new CopySharing(grants);
  return new BounceSharing(grants, device);
}

/** The DMA operations of a device in one mode, or in the one that is possible in its place. */
export function grantDma(mode: ExposureMode, grants: Grants, device: number): GrantDma {
  return new GrantDma(grants, device, sharingOf(possibleMode(mode, grants.domain.table), grants, device));
}
