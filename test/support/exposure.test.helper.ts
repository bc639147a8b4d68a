// Every exposure mode where it is to be had: `copy` is on x86 only, with a backend that copies.

import { EXPOSURE_MODES, type ExposureMode } from '../../src/dma/exposure-modes.ts';
import { addressMap, type Architecture } from '../../src/hosts/model/address-map.ts';
import type { MemoryAccess } from '../../src/machine/backend-domain.ts';

/** A mode, a machine that has it, and how the backend reaches buffers there. */
export interface ExposureScene {
  readonly mode: ExposureMode;
  readonly architecture: Architecture;
  readonly access: MemoryAccess;
  /** Guest-physical address of the first device. */
  readonly base: number;
}

/** The scene of one mode. */
export function exposureScene(mode: ExposureMode): ExposureScene {
  const architecture = mode === 'copy' ? 'x86' : 'arm';
  const access = mode === 'copy' ? 'copy' : 'map';
  return { mode, architecture, access, base: addressMap(architecture).virtioMmio };
}

export const EXPOSURE_SCENES: readonly ExposureScene[] = EXPOSURE_MODES.map(exposureScene);
