// The exposure modes by name: what a device is configured with, and the DMA operations that it means.
// Used by machine/guest-domain.ts; each mode is a file of its own, see buffer-sharing.ts.

import { BounceSharing } from './bounce-sharing.ts';
import type { BufferSharing } from './buffer-sharing.ts';
import { DirectSharing } from './direct-sharing.ts';
import { GrantDma } from './grant-dma.ts';
import type { Grants } from './grants.ts';

/** How a device's buffers are exposed to its backend, least private first. */
export const EXPOSURE_MODES = ['direct', 'bounce'] as const;
export type ExposureMode = (typeof EXPOSURE_MODES)[number];

/** @param device the device's number in trace events */
function sharingOf(mode: ExposureMode, grants: Grants, device: number): BufferSharing {
  return mode === 'direct' ? new DirectSharing(grants) : new BounceSharing(grants, device);
}

/** The DMA operations of a device in one mode. */
export function grantDma(mode: ExposureMode, grants: Grants, device: number): GrantDma {
  return new GrantDma(grants, device, sharingOf(mode, grants, device));
}
