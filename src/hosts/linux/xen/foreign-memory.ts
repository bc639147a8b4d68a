// All of a guest's memory in this process, for a device that uses no grants. After host.ts and privcmd.ts; its
// counterpart in the embedded Xen is hosts/model/foreign-memory.ts.
//
// What can be mapped is one piece from the beginning of the guest's memory, as long as the guest may have pages: memory
// behind the hole for devices below 4 GiB is not reached, and buffers there are refused. Frames of the piece where the
// guest has no memory (the graphics card's, what a balloon has taken) are holes: memory of this process stands there
// that nobody else sees, so that a guest which names one harms itself only.
//
// System calls can copy to and from these pages, but disks cannot reach them directly (O_DIRECT): Linux has no page
// structures for them.

import { type Region, regionOver } from '../../../abi/region.ts';
import { GUEST_RAM_BANKS } from '../../../abi/xen-arm.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import type { Tracer } from '../../../trace.ts';
import type { ForeignMemory } from '../../../xen/backend-host.ts';
import type { DomainId } from '../../../xen/ids.ts';
import { checked, type Libc, MOST_VIEWED } from '../libc.ts';
import { domainInfo } from './domain-info.ts';
import type { Privcmd } from './privcmd.ts';

const PROT_READ_WRITE = 3;
const MAP_PRIVATE_ANONYMOUS = 0x22;
const MAP_FIXED_HOLE = 0x4032; // MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS | MAP_NORESERVE
const FRAME_BYTES = 8;
const ERROR_BYTES = 4;

export interface ForeignParts {
  readonly libc: Libc;
  readonly privcmd: Privcmd;
  /** The domain that this is. */
  readonly id: DomainId;
  readonly tracer: Tracer;
}

/**
 * Maps the memory of `guest`.
 *
 * @throws RangeError when this domain may not, the guest is none that has one address space of its own, or its first
 *   frame is not there; nothing is mapped then
 */
export function mapForeignMemory(
  parts: ForeignParts,
  guest: DomainId,
  architecture: string = process.arch,
): ForeignMemory {
  const { libc, privcmd, id, tracer } = parts;
  const info = domainInfo(libc, privcmd, guest);
  if (!info.translated) throw refused(parts, guest, 'a PV guest has no address space that could be mapped');
  const base = architecture === 'arm64' ? GUEST_RAM_BANKS[0].base : 0;
  const first = base / XEN_PAGE_SIZE;
  const count = Math.min(info.maxPages, MOST_VIEWED / XEN_PAGE_SIZE);
  // Before anything can be reached, as every event that opens access.
  tracer.reach(id, guest, first, count);
  const over = () => tracer.reachEnd(id, guest, first, count);
  try {
    const region = mapFrames(parts, guest, first, count);
    const close = () => {
      privcmd.unmap(region.address, count);
      over();
    };
    return { region, base, close };
  } catch (error) {
    over();
    throw error;
  }
}

function mapFrames(parts: ForeignParts, guest: DomainId, first: number, count: number): Region {
  const { libc, privcmd } = parts;
  const length = count * (FRAME_BYTES + ERROR_BYTES);
  const lists = libc.mmap(0, length, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0);
  checked(libc, 'mmap', lists, 'a list of frames');
  try {
    const frames = new BigUint64Array(libc.view(lists, length), 0, count);
    for (let i = 0; i < count; i++) frames[i] = BigInt(first + i);
    const errors = new Int32Array(libc.view(lists, length), count * FRAME_BYTES, count);
    const address = privcmd.mapFrames(guest, count, lists, lists + count * FRAME_BYTES);
    if (address < 0) throw refused(parts, guest, `error ${address}`);
    if (errors[0] !== 0) {
      privcmd.unmap(address, count);
      throw refused(parts, guest, `its frame 0x${first.toString(16)} is not there (error ${errors[0]})`);
    }
    fillHoles(libc, address, errors);
    const bytes = count * XEN_PAGE_SIZE;
    return regionOver(libc.view(address, bytes), 0, bytes, address);
  } finally {
    libc.munmap(lists, length);
  }
}

/** Puts memory of our own wherever a frame has an error, so that every byte of the piece can be looked at. */
function fillHoles(libc: Libc, address: number, errors: Int32Array): void {
  for (let i = 0; i < errors.length; i++) {
    const begin = i;
    while (i < errors.length && errors[i] !== 0) i++;
    if (i === begin) continue;
    const at = address + begin * XEN_PAGE_SIZE;
    const result = libc.mmap(at, (i - begin) * XEN_PAGE_SIZE, PROT_READ_WRITE, MAP_FIXED_HOLE, -1, 0);
    checked(libc, 'mmap', result, "holes of a guest's memory");
  }
}

function refused({ id }: ForeignParts, guest: DomainId, why: string): RangeError {
  return new RangeError(`domain ${id} cannot map the memory of domain ${guest}: ${why}`);
}
