// The guest's memory as the frontend announces it: as one table, or region by region. After session.ts, before
// memory/region-table.ts.

import {
  vhostUserMemoryHeader,
  vhostUserMemoryRegion,
  vhostUserSingleRegionHeader,
} from '../../abi/vhost-user.ts';
import { vhostUserXenRegion, xenMapping } from '../../abi/vhost-user-xen.ts';
import { ProtocolViolation } from '../../errors.ts';
import { type MemoryRegion, RegionTable } from '../../memory/region-table.ts';
import { mapFile } from './map-file.ts';
import type { VhostMessage } from './message-reader.ts';
import type { GrantedRegion, MappedFile, VhostPlatform, XenMemory } from './platform.ts';

/** Regions that a guest may have: what we answer to GET_MAX_MEM_SLOTS. */
export const MAX_SLOTS = 32;

/**
 * Longest piece of a region that is mapped at once, in bytes: views of memory end at 4 GiB, and the guest of an
 * ordinary server has more. A ring that lies across two pieces is refused.
 */
const LONGEST_PIECE = 2 ** 31;

/** A region, and its mappings one after the other. */
interface Slot {
  readonly guest: number;
  readonly user: number;
  readonly size: number;
  readonly pieces: readonly MemoryRegion[];
  readonly files: readonly MappedFile[];
  readonly domainId: number | undefined;
  /** What it is instead, where nothing is mapped in advance. */
  readonly granted: GrantedRegion | undefined;
}

/** One region as the message describes it. */
interface Described {
  readonly guest: number;
  readonly user: number;
  readonly size: number;
  readonly offset: number;
  /** Whose memory it is, where it is not a file. */
  readonly xen: XenMemory | undefined;
  /** Its pieces are mapped when they are used. */
  readonly granted: GrantedRegion | undefined;
}

const CLAUSE = 'vhost-user memory region';
const HIGH = 2 ** 32;

/** The regions of a session. */
export class MemorySlots {
  readonly #platform: VhostPlatform;
  readonly #longestPiece: number;
  #slots: readonly Slot[] = [];

  constructor(platform: VhostPlatform, longestPiece = LONGEST_PIECE) {
    this.#platform = platform;
    this.#longestPiece = longestPiece;
  }

  get count(): number {
    return this.#slots.length;
  }

  /** What the message of a whole table describes; its descriptors stay the message's. */
  replacement({ payload, fds }: VhostMessage, xen: boolean): MemoryChange {
    const { regions } = vhostUserMemoryHeader.over(payload);
    const size = vhostUserMemoryHeader.size + regions * regionSize(xen);
    // User-Mode Linux always sends room for two regions, so there may be more bytes than are counted.
    if (regions > MAX_SLOTS || payload.length < size || fds.length !== regions)
      throw new ProtocolViolation(
        'vhost-user SET_MEM_TABLE',
        `${regions} regions in ${payload.length} bytes with ${fds.length} descriptors, expected up to ${MAX_SLOTS} with one each`,
      );
    const described = Array.from({ length: regions }, (_, i) =>
      describedAt(payload, vhostUserMemoryHeader.size + i * regionSize(xen), xen),
    );
    return this.#change([], described, fds, this.#slots);
  }

  /** What a message that adds a region comes to. */
  addition({ payload, fds }: VhostMessage, xen: boolean): MemoryChange {
    if (fds.length !== 1)
      throw new ProtocolViolation('vhost-user ADD_MEM_REG', `${fds.length} descriptors, expected 1`);
    if (this.#slots.length === MAX_SLOTS)
      throw new ProtocolViolation('vhost-user ADD_MEM_REG', `more than ${MAX_SLOTS} regions`);
    return this.#change(this.#slots, [singleRegion(payload, xen)], fds, []);
  }

  /** What a message that removes a region comes to. */
  removal({ payload }: VhostMessage, xen: boolean): MemoryChange {
    const gone = singleRegion(payload, xen);
    const slot = this.#slots.find(
      ({ guest, user, size }) => guest === gone.guest && user === gone.user && size === gone.size,
    );
    if (slot === undefined)
      throw new ProtocolViolation(
        'vhost-user REM_MEM_REG',
        `no region of ${gone.size} bytes at 0x${gone.guest.toString(16)}, expected one of ${this.#slots.length}`,
      );
    return this.#change(
      this.#slots.filter((other) => other !== slot),
      [],
      [],
      [slot],
    );
  }

  /** Ends all mappings; no ring runs any more. */
  close(): void {
    closeAll(this.#slots);
    this.#slots = [];
  }

  #change(
    kept: readonly Slot[],
    added: readonly Described[],
    fds: readonly number[],
    gone: readonly Slot[],
  ): MemoryChange {
    const mapped: Slot[] = [];
    try {
      for (const [index, region] of added.entries()) mapped.push(this.#map(region, fds[index]));
      const slots = [...kept, ...mapped];
      const regions = slots.flatMap(({ pieces }) => pieces);
      const granted = slots.flatMap((slot) => slot.granted ?? []);
      refuseTwoDomains(slots);
      refuseImpossible(regions);
      refuseMixture(regions, granted);
      return {
        regions,
        granted,
        commit: () => {
          closeAll(gone);
          this.#slots = slots;
        },
      };
    } catch (error) {
      closeAll(mapped);
      throw error;
    }
  }

  #map({ guest, user, size, offset, xen, granted }: Described, fd: number): Slot {
    const slot = { guest, user, size, granted, pieces: [] as MemoryRegion[], files: [] as MappedFile[] };
    if (granted !== undefined) return { ...slot, domainId: granted.domainId };
    try {
      // At least once: what is empty is refused there.
      let at = 0;
      do {
        const length = Math.min(size - at, this.#longestPiece);
        const file = mapFile(this.#platform, CLAUSE, fd, offset + at, length, xen);
        slot.files.push(file);
        slot.pieces.push({ guest: guest + at, user: user + at, size: length, memory: file.region });
        at += length;
      } while (at < size);
    } catch (error) {
      closeAll([slot]);
      throw error;
    }
    return { ...slot, domainId: xen?.domainId };
  }
}

/** Memory that has been mapped and not been taken into use. */
export interface MemoryChange {
  readonly regions: readonly MemoryRegion[];
  readonly granted: readonly GrantedRegion[];
  /** Ends the mappings that it replaces; to be called when no ring uses them any more. */
  commit(): void;
}

function closeAll(slots: readonly Pick<Slot, 'files'>[]): void {
  for (const { files } of slots) for (const file of files) file.close();
}

/** Regions that are empty, wrap or overlap (case T5) make no table. */
function refuseImpossible(regions: readonly MemoryRegion[]): void {
  new RegionTable(regions);
}

/** A device reaches either what was announced or what was granted. */
function refuseMixture(regions: readonly MemoryRegion[], granted: readonly GrantedRegion[]): void {
  if (regions.length > 0 && granted.length > 0)
    throw new ProtocolViolation('vhost-user XEN_MMAP', 'memory mapped in advance beside memory that is not');
}

function regionSize(xen: boolean): number {
  return xen ? vhostUserXenRegion.size : vhostUserMemoryRegion.size;
}

function singleRegion(payload: Uint8Array, xen: boolean): Described {
  const size = vhostUserSingleRegionHeader.size + regionSize(xen);
  if (payload.length < size) throw new ProtocolViolation(CLAUSE, `${payload.length} bytes, expected ${size}`);
  return describedAt(payload, vhostUserSingleRegionHeader.size, xen);
}

function describedAt(payload: Uint8Array, at: number, xen: boolean): Described {
  // The first four fields are the same with and without Xen.
  const region = vhostUserMemoryRegion.over(payload).at(at);
  const guest = region.guest_addressHigh * HIGH + region.guest_addressLow;
  return {
    guest,
    user: region.user_addressHigh * HIGH + region.user_addressLow,
    size: region.size,
    offset: region.mmap_offset,
    ...(xen ? xenMemoryAt(payload, at, guest) : { xen: undefined, granted: undefined }),
  };
}

/** Case T14: what the flags of a Xen region say, refused where they contradict each other. */
function xenMemoryAt(payload: Uint8Array, at: number, guest: number): Pick<Described, 'xen' | 'granted'> {
  const { xen_mmap_flags, domid } = vhostUserXenRegion.over(payload).at(at);
  const mapping = xenMapping(xen_mmap_flags);
  if ('fault' in mapping) throw new ProtocolViolation('vhost-user XEN_MMAP', mapping.reason);
  if (mapping.kind === 'file') return { xen: undefined, granted: undefined };
  if (mapping.inAdvance) return { xen: { kind: mapping.kind, domainId: domid, guest }, granted: undefined };
  const region = vhostUserXenRegion.over(payload).at(at);
  const granted = {
    guestLow: region.guest_addressLow,
    guestHigh: region.guest_addressHigh,
    userLow: region.user_addressLow,
    userHigh: region.user_addressHigh,
    size: region.size,
    domainId: domid,
  };
  return { xen: undefined, granted };
}

/** Case T14: a session serves one guest. */
function refuseTwoDomains(slots: readonly Slot[]): void {
  const domains = new Set(slots.flatMap(({ domainId }) => (domainId === undefined ? [] : [domainId])));
  if (domains.size > 1)
    throw new ProtocolViolation('vhost-user XEN_MMAP', `memory of domains ${[...domains].join(' and ')}`);
}
