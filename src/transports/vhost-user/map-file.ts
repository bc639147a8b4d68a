// Maps a file of the frontend's, whose size and offset are the frontend's words (case T5). Used by memory-slots.ts,
// inflight-buffer.ts and guest-memory.ts.

import { AssertionError, ProtocolViolation } from '../../errors.ts';
import type { MappedFile, VhostPlatform, XenMemory } from './platform.ts';

/** Rings and logs are reached through typed arrays. */
const ALIGNMENT = 8;

/** Maps `length` bytes of `fd` from `offset`; throws ProtocolViolation, which says why not. */
export function mapFile(
  platform: VhostPlatform,
  clause: string,
  fd: number,
  offset: number,
  length: number,
  xen?: XenMemory,
): MappedFile {
  if (length <= 0 || length % ALIGNMENT || offset % ALIGNMENT || !Number.isSafeInteger(offset + length))
    throw new ProtocolViolation(
      clause,
      `${length} bytes from ${offset} of a file: expected some, and multiples of ${ALIGNMENT}`,
    );
  return orViolation(clause, () => platform.map(fd, offset, length, xen));
}

/** What `step` returns. What the machine refuses is the end of this connection only: it throws ProtocolViolation. */
export function orViolation<T>(clause: string, step: () => T): T {
  try {
    return step();
  } catch (error) {
    if (error instanceof ProtocolViolation || error instanceof AssertionError) throw error;
    throw new ProtocolViolation(clause, error instanceof Error ? error.message : String(error));
  }
}
