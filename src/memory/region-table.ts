// A guest's memory as a virtual machine monitor hands it over: regions, each mapped into this process, by
// guest-physical address for buffers and by the monitor's own address for rings (vhost-user).
// Next to grant-memory.ts; used by transports/vhost-user/.

import { formatAddress } from '../abi/grant-address.ts';
import type { Region } from '../abi/region.ts';
import { assert, ProtocolViolation } from '../errors.ts';
import type { ChainAccess, DeviceMemory, MappedRing } from './device-memory.ts';
import { ResidentAccess } from './resident-access.ts';
import type { Segments } from './segments.ts';

const HIGH = 2 ** 32;
/** Addresses are numbers here: exact below 2^53, and no machine has memory beyond. */
const MOST = Number.MAX_SAFE_INTEGER;

/** One piece of the guest's memory. */
export interface MemoryRegion {
  /** Guest-physical address of its first byte. */
  readonly guest: number;
  /** The same byte's address in the monitor. */
  readonly user: number;
  /** Bytes. */
  readonly size: number;
  /** The bytes. */
  readonly memory: Region;
}

class TableAccess extends ResidentAccess {
  readonly #table: RegionTable;

  constructor(table: RegionTable) {
    super();
    this.#table = table;
  }

  /** A buffer may go on from one region into the next, where both are memory. */
  map(low: number, high: number, length: number, writable: boolean): number {
    const segments = writable ? this.writable : this.readable;
    let address = high * HIGH + low;
    for (let left = length; left > 0; ) {
      const region = this.#table.at(address);
      if (region === undefined) throw outside(low, high, length);
      const offset = address - region.guest;
      const piece = Math.min(left, region.size - offset);
      segments.push(region.memory, offset, piece);
      address += piece;
      left -= piece;
    }
    return 0;
  }
}

function outside(low: number, high: number, length: number): ProtocolViolation {
  return new ProtocolViolation(
    '§2.7.5',
    `buffer ${formatAddress(low, high)}, ${length} bytes: not in the guest's memory`,
  );
}

/** All of a guest's memory, as regions that do not overlap. */
export class RegionTable implements DeviceMemory {
  /** By guest-physical address. */
  readonly #regions: readonly MemoryRegion[];
  readonly #guestAddresses = new Map<Region, number>();
  /** The last one that was found: requests use it again. */
  #recent: MemoryRegion | undefined;

  /** Throws ProtocolViolation when regions overlap, are empty, or wrap (case T5). */
  constructor(regions: readonly MemoryRegion[]) {
    this.#regions = regions.toSorted((a, b) => a.guest - b.guest);
    for (const region of this.#regions) {
      checkRegion(region);
      this.#guestAddresses.set(region.memory, region.guest);
    }
    refuseOverlap(this.#regions, 'guest');
    refuseOverlap(
      regions.toSorted((a, b) => a.user - b.user),
      'user',
    );
  }

  /** Bytes of all regions. */
  get byteLength(): number {
    return this.#regions.reduce((sum, { size }) => sum + size, 0);
  }

  newChainAccess(): ChainAccess {
    return new TableAccess(this);
  }

  /** A ring of `length` bytes whose address is the guest's. */
  mapRing(low: number, high: number, length: number): MappedRing {
    const address = high * HIGH + low;
    const region = this.at(address);
    if (region === undefined || address + length > region.guest + region.size)
      throw outside(low, high, length);
    return { region: region.memory, offset: address - region.guest, release: () => undefined };
  }

  /** A ring of `length` bytes whose address is the monitor's own, as vhost-user gives it. */
  userRing(low: number, high: number, length: number): MappedRing {
    const address = high * HIGH + low;
    const region = this.#regions.find(({ user, size }) => address >= user && address < user + size);
    if (region === undefined || address + length > region.user + region.size)
      throw outside(low, high, length);
    return { region: region.memory, offset: address - region.user, release: () => undefined };
  }

  /** Appends `length` bytes from the monitor's `address` to `segments`. Throws ProtocolViolation outside all regions. */
  collectUser(address: number, length: number, segments: Segments): void {
    for (let at = address, left = length; left > 0; ) {
      const region = this.#regions.find(({ user, size }) => at >= user && at < user + size);
      if (region === undefined) throw outside(address % HIGH, Math.floor(address / HIGH), length);
      const piece = Math.min(left, region.user + region.size - at);
      segments.push(region.memory, at - region.user, piece);
      at += piece;
      left -= piece;
    }
  }

  /** Guest-physical address of the first byte of `memory`, which is a region of this table. */
  guestAddress(memory: Region): number {
    const address = this.#guestAddresses.get(memory);
    assert(address !== undefined, 'memory is of this table');
    return address;
  }

  /** The region that holds guest-physical `address`. */
  at(address: number): MemoryRegion | undefined {
    const recent = this.#recent;
    if (recent !== undefined && address >= recent.guest && address < recent.guest + recent.size)
      return recent;
    const found = this.#regions.find(({ guest, size }) => address >= guest && address < guest + size);
    if (found !== undefined) this.#recent = found;
    return found;
  }
}

function checkRegion({ guest, user, size, memory }: MemoryRegion): void {
  if (size <= 0 || guest + size > MOST || user + size > MOST)
    throw new ProtocolViolation(
      'vhost-user memory region',
      `${size} bytes at 0x${guest.toString(16)}: empty, or past the end of the address space`,
    );
  if (memory.byteLength < size)
    throw new ProtocolViolation(
      'vhost-user memory region',
      `${size} bytes at 0x${guest.toString(16)}: only ${memory.byteLength} are mapped`,
    );
}

function refuseOverlap(sorted: readonly MemoryRegion[], by: 'guest' | 'user'): void {
  for (let i = 1; i < sorted.length; i++) {
    const before = sorted[i - 1];
    if (before[by] + before.size > sorted[i][by])
      throw new ProtocolViolation(
        'vhost-user memory region',
        `regions at ${by} addresses 0x${before[by].toString(16)} and 0x${sorted[i][by].toString(16)} overlap`,
      );
  }
}
