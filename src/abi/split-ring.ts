// Layout of a split virtqueue in memory: virtio 1.3 §2.7. Three areas, each contiguous:
// descriptor table (16-byte descriptors), driver area ("available ring"), device area ("used ring").

import { struct } from './struct.ts';

/** §2.7.5 The descriptor table's entry. */
export const virtqDesc = struct('virtq_desc', { addr: 'addr64', len: 'u32', flags: 'u16', next: 'u16' });
/** §2.7.8 An element of the used ring. */
export const virtqUsedElem = struct('virtq_used_elem', { id: 'u32', len: 'u32' });

export const VIRTQ_DESC_F_NEXT = 1;
/** The device writes this buffer; clear: the device reads it. */
export const VIRTQ_DESC_F_WRITE = 2;
export const VIRTQ_DESC_F_INDIRECT = 4;
export const VIRTQ_AVAIL_F_NO_INTERRUPT = 1;
export const VIRTQ_USED_F_NO_NOTIFY = 1;

export const VIRTQ_DESC_SIZE = virtqDesc.size;
/** §2.7: "Queue Size" of a split virtqueue is a power of two up to this. */
export const VIRTQ_MAX_SIZE = 32768;

/** Sizes in bytes of the three areas for a queue of `size` descriptors (§2.7, the table of alignments). */
export function splitRingSizes(size: number): { descriptor: number; driver: number; device: number } {
  return {
    descriptor: VIRTQ_DESC_SIZE * size,
    driver: 6 + 2 * size,
    device: 6 + virtqUsedElem.size * size,
  };
}

/** Alignment in bytes of the three areas (§2.7). */
export const VIRTQ_DESC_ALIGN = 16;
export const VIRTQ_AVAIL_ALIGN = 2;
export const VIRTQ_USED_ALIGN = 4;

/** Whether `size` may be the size of a split virtqueue: a power of two from 1 to 32768 (§2.7). */
export function isSplitRingSize(size: number): boolean {
  return Number.isInteger(size) && size >= 1 && size <= VIRTQ_MAX_SIZE && (size & (size - 1)) === 0;
}

/**
 * §2.7.7.2 and §2.7.10: with VIRTIO_F_EVENT_IDX, whether moving an index from `old` to `now` has passed
 * the index `event` that the other side asked to be told about. All three are free-running u16.
 */
export function passedEvent(event: number, now: number, old: number): boolean {
  return ((now - event - 1) & 0xffff) < ((now - old) & 0xffff);
}
