// The buffer that outlives a vhost-user backend and tells its successor which requests were under way (QEMU,
// docs/interop/vhost-user.rst, "Inflight I/O tracking", split virtqueues). Used by transports/vhost-user/.

import { struct } from './struct.ts';

/** Before the descriptors of one queue. `used_idx` is the used index as of the last completion that was recorded. */
export const inflightQueueHeader = struct('QueueRegionSplit', {
  features: 'bits64',
  version: 'u16',
  desc_num: 'u16',
  last_batch_head: 'u16',
  used_idx: 'u16',
});

/** One for each possible head of a chain. `next` links the heads of a batch of completions, the newest first. */
export const inflightDescriptor = struct('DescStateSplit', {
  inflight: 'u8',
  padding: { bytes: 5 },
  next: 'u16',
  counter: 'u64',
});

/** The layout above; 0 is a buffer that nobody has used yet. */
export const INFLIGHT_VERSION = 1;

/** Regions of two queues share no cache line. */
const ALIGNMENT = 64;

/** Bytes that a queue of `size` descriptors takes, a multiple of 64. */
export function inflightQueueSize(size: number): number {
  const bytes = inflightQueueHeader.size + size * inflightDescriptor.size;
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}
