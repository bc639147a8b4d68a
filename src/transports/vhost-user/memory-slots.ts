// The guest's memory as the frontend announces it: as one table, or region by region. After session.ts, before
// memory/region-table.ts.

import {
  vhostUserMemoryHeader,
  vhostUserMemoryRegion,
  vhostUserSingleRegionHeader,
} from '../../abi/vhost-user.ts';
import { ProtocolViolation } from '../../errors.ts';
import { type MemoryRegion, RegionTable } from '../../memory/region-table.ts';
import type { VhostMessage } from './message-reader.ts';
import type { MappedFile, VhostPlatform } from './platform.ts';

/** Regions that a guest may have: what we answer to GET_MAX_MEM_SLOTS. */
export const MAX_SLOTS = 32;

/** A region and its mapping. */
interface Slot extends MemoryRegion {
  readonly file: MappedFile;
}

/** One region as the message describes it. */
interface Described {
  readonly guest: number;
  readonly user: number;
  readonly size: number;
  readonly offset: number;
}

const HIGH = 2 ** 32;

/** The regions of a session. */
export class MemorySlots {
  readonly #platform: VhostPlatform;
  #slots: readonly Slot[] = [];

  constructor(platform: VhostPlatform) {
    this.#platform = platform;
  }

  get count(): number {
    return this.#slots.length;
  }

  /** What the message of a whole table describes; its descriptors stay the message's. */
  replacement({ payload, fds }: VhostMessage): MemoryChange {
    const { regions } = vhostUserMemoryHeader.over(payload);
    const size = vhostUserMemoryHeader.size + regions * vhostUserMemoryRegion.size;
    if (regions > MAX_SLOTS || payload.length !== size || fds.length !== regions)
      throw new ProtocolViolation(
        'vhost-user SET_MEM_TABLE',
        `${regions} regions in ${payload.length} bytes with ${fds.length} descriptors`,
      );
    const described = Array.from({ length: regions }, (_, i) =>
      describedAt(payload, vhostUserMemoryHeader.size + i * vhostUserMemoryRegion.size),
    );
    return this.#change([], described, fds, [...this.#slots]);
  }

  /** What a message that adds a region comes to. */
  addition({ payload, fds }: VhostMessage): MemoryChange {
    if (fds.length !== 1)
      throw new ProtocolViolation('vhost-user ADD_MEM_REG', `${fds.length} descriptors, expected 1`);
    if (this.#slots.length === MAX_SLOTS)
      throw new ProtocolViolation('vhost-user ADD_MEM_REG', `more than ${MAX_SLOTS} regions`);
    return this.#change(this.#slots, [singleRegion(payload)], fds, []);
  }

  /** What a message that removes a region comes to. */
  removal({ payload }: VhostMessage): MemoryChange {
    const gone = singleRegion(payload);
    const slot = this.#slots.find(
      ({ guest, user, size }) => guest === gone.guest && user === gone.user && size === gone.size,
    );
    if (slot === undefined)
      throw new ProtocolViolation(
        'vhost-user REM_MEM_REG',
        `no region of ${gone.size} bytes at 0x${gone.guest.toString(16)}`,
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
    for (const { file } of this.#slots) file.close();
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
      for (const [index, { guest, user, size, offset }] of added.entries()) {
        const file = this.#platform.map(fds[index], offset, size);
        mapped.push({ guest, user, size, memory: file.region, file });
      }
      const slots = [...kept, ...mapped];
      const table = new RegionTable(slots);
      return {
        table,
        commit: () => {
          for (const { file } of gone) file.close();
          this.#slots = slots;
        },
      };
    } catch (error) {
      for (const { file } of mapped) file.close();
      throw error;
    }
  }
}

/** Memory that has been mapped and not been taken into use. */
export interface MemoryChange {
  readonly table: RegionTable;
  /** Ends the mappings that it replaces; to be called when no ring uses them any more. */
  commit(): void;
}

function singleRegion(payload: Uint8Array): Described {
  const size = vhostUserSingleRegionHeader.size + vhostUserMemoryRegion.size;
  if (payload.length < size)
    throw new ProtocolViolation('vhost-user memory region', `${payload.length} bytes, expected ${size}`);
  return describedAt(payload, vhostUserSingleRegionHeader.size);
}

function describedAt(payload: Uint8Array, at: number): Described {
  const region = vhostUserMemoryRegion.over(payload).at(at);
  return {
    guest: region.guest_addressHigh * HIGH + region.guest_addressLow,
    user: region.user_addressHigh * HIGH + region.user_addressLow,
    size: region.size,
    offset: region.mmap_offset,
  };
}
