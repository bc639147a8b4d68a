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
const MAP_HOLES = 0x4022; // MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
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
  const { libc } = parts;
  const length = count * (FRAME_BYTES + ERROR_BYTES);
  const lists = libc.mmap(0, length, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0);
  checked(libc, 'mmap', lists, 'a list of frames');
  try {
    const frames = new BigUint64Array(libc.view(lists, length), 0, count);
    for (let i = 0; i < count; i++) frames[i] = BigInt(first + i);
    return mapRuns(parts, guest, lists, runsOf(findFrames(parts, guest, lists, count)), count);
  } finally {
    libc.munmap(lists, length);
  }
}

/** Asks which frames are there, by mapping all of them. Returns the errors, 0 for each that is. */
function findFrames(parts: ForeignParts, guest: DomainId, lists: number, count: number): Int32Array {
  const { libc, privcmd } = parts;
  const at = lists + count * FRAME_BYTES;
  const address = privcmd.mapFrames(guest, count, lists, at);
  if (address < 0) throw refused(parts, guest, `error ${address}`);
  privcmd.unmap(address, count);
  const errors = new Int32Array(libc.view(at, count * ERROR_BYTES)).slice();
  if (errors[0] !== 0)
    throw refused(parts, guest, `the first frame of its memory is not there (error ${errors[0]})`);
  return errors;
}

/** Memory of our own, with the guest's frames over it wherever there are some. */
function mapRuns(parts: ForeignParts, guest: DomainId, lists: number, runs: Run[], count: number): Region {
  const { libc, privcmd } = parts;
  const bytes = count * XEN_PAGE_SIZE;
  const base = libc.mmap(0, bytes, PROT_READ_WRITE, MAP_HOLES, -1, 0);
  checked(libc, 'mmap', base, "a guest's memory");
  const errors = lists + count * FRAME_BYTES;
  const refusals = new Int32Array(libc.view(errors, count * ERROR_BYTES));
  try {
    for (const { begin, end } of runs) {
      const place = base + begin * XEN_PAGE_SIZE;
      const frames = lists + begin * FRAME_BYTES;
      const result = privcmd.mapFrames(guest, end - begin, frames, errors, place);
      const gone = result < 0 || refusals.subarray(0, end - begin).some((error) => error !== 0);
      if (gone) throw refused(parts, guest, 'frames of it are going while it is mapped');
    }
    return regionOver(libc.view(base, bytes), 0, bytes, base);
  } catch (error) {
    privcmd.unmap(base, count);
    throw error;
  }
}

/** Frames that are there, from `begin` up to `end`. */
interface Run {
  readonly begin: number;
  readonly end: number;
}

function runsOf(errors: Int32Array): Run[] {
  const runs: Run[] = [];
  for (let i = 0; i < errors.length; i++) {
    const begin = i;
    while (i < errors.length && errors[i] === 0) i++;
    if (i > begin) runs.push({ begin, end: i });
  }
  return runs;
}

function refused({ id }: ForeignParts, guest: DomainId, why: string): RangeError {
  return new RangeError(`domain ${id} cannot map the memory of domain ${guest}: ${why}`);
}
