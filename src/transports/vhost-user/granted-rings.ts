// Rings in memory that a Xen domain has granted, and that is mapped when it is used: where a ring is, the frontend says
// in its own addresses, as ever. Used by local-rings.ts.

import { ProtocolViolation } from '../../errors.ts';
import type { DeviceMemory, MappedRing } from '../../memory/device-memory.ts';
import type { GrantedRegion } from './platform.ts';

/** Rare enough, and too large for numbers. */
function address(low: number, high: number): bigint {
  return (BigInt(high) << 32n) | BigInt(low);
}

/** Maps a ring whose address is the frontend's. Throws ProtocolViolation when no granted region has all of it. */
export function mapGrantedRing(
  memory: DeviceMemory,
  granted: readonly GrantedRegion[],
  low: number,
  high: number,
  length: number,
): MappedRing {
  const at = address(low, high);
  for (const { userLow, userHigh, guestLow, guestHigh, size } of granted) {
    const offset = at - address(userLow, userHigh);
    if (offset < 0n || offset + BigInt(length) > BigInt(size)) continue;
    const guest = BigInt.asUintN(64, address(guestLow, guestHigh) + offset);
    return memory.mapRing(Number(guest & 0xffff_ffffn), Number(guest >> 32n), length);
  }
  throw new ProtocolViolation(
    'vhost-user XEN_MMAP',
    `a ring of ${length} bytes at 0x${at.toString(16)}: not in the memory that was granted`,
  );
}
