// Maps the three areas of a split virtqueue, or none of them (virtio 1.3 §2.7). After virtio/device-state.ts and
// transports/vhost-user/, before device-queue.ts.

import { splitRingSizes, VIRTQ_AVAIL_ALIGN, VIRTQ_DESC_ALIGN, VIRTQ_USED_ALIGN } from '../abi/split-ring.ts';
import { ProtocolViolation } from '../errors.ts';
import type { MappedRing } from '../memory/device-memory.ts';

/** The mapped ring areas of a queue. */
export interface RingAreas {
  readonly descriptor: MappedRing;
  readonly driver: MappedRing;
  readonly device: MappedRing;
}

/** Where the areas of a queue are, in whatever addresses its transport uses, as halves. */
export interface RingPlaces {
  readonly descriptorLow: number;
  readonly descriptorHigh: number;
  readonly driverLow: number;
  readonly driverHigh: number;
  readonly deviceLow: number;
  readonly deviceHigh: number;
}

/** Maps a ring area of `length` bytes; throws ProtocolViolation when that cannot be. */
export type MapRing = (low: number, high: number, length: number) => MappedRing;

/** Maps the areas of a queue of `size`. Throws ProtocolViolation, with nothing mapped, for places that cannot be. */
export function mapRingAreas(size: number, places: RingPlaces, map: MapRing): RingAreas {
  if (
    places.descriptorLow % VIRTQ_DESC_ALIGN ||
    places.driverLow % VIRTQ_AVAIL_ALIGN ||
    places.deviceLow % VIRTQ_USED_ALIGN
  )
    throw new ProtocolViolation('§2.7', 'a ring area is not aligned');
  const bytes = splitRingSizes(size);
  const mapped: MappedRing[] = [];
  try {
    mapped.push(map(places.descriptorLow, places.descriptorHigh, bytes.descriptor));
    mapped.push(map(places.driverLow, places.driverHigh, bytes.driver));
    mapped.push(map(places.deviceLow, places.deviceHigh, bytes.device));
    refuseOverlap(mapped, [bytes.descriptor, bytes.driver, bytes.device]);
    refuseMisplaced(mapped);
  } catch (error) {
    for (const ring of mapped) ring.release();
    throw error;
  }
  const [descriptor, driver, device] = mapped;
  return { descriptor, driver, device };
}

/** Case F19: areas that overlap would let one index rewrite another. */
function refuseOverlap(areas: readonly MappedRing[], sizes: readonly number[]): void {
  for (const [i, one] of areas.entries()) {
    for (const [j, other] of areas.entries()) {
      if (i >= j || one.region !== other.region) continue;
      if (one.offset < other.offset + sizes[j] && other.offset < one.offset + sizes[i])
        throw new ProtocolViolation('§2.7', 'ring areas overlap');
    }
  }
}

/** A region that begins at an odd address has no aligned place in it, whatever the address of a ring says. */
function refuseMisplaced([descriptor, driver, device]: readonly MappedRing[]): void {
  if (descriptor.offset % 4 || driver.offset % VIRTQ_AVAIL_ALIGN || device.offset % VIRTQ_USED_ALIGN)
    throw new ProtocolViolation('§2.7', 'a ring area is not aligned in the memory that holds it');
}
