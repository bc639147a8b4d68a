// What a session knows of the guest's memory: its regions, its IOMMU's translations, and the dirty log. Changes are
// prepared here and applied while no ring runs. After session.ts, before memory-slots.ts.

import {
  VHOST_IOTLB_INVALIDATE,
  VHOST_IOTLB_UPDATE,
  vhostUserIotlb,
  vhostUserLog,
} from '../../abi/vhost-user.ts';
import { ProtocolViolation } from '../../errors.ts';
import { DirtyLog } from '../../memory/dirty-log.ts';
import { Iotlb } from '../../memory/iotlb.ts';
import { RegionTable } from '../../memory/region-table.ts';
import { mapFile } from './map-file.ts';
import { MemorySlots, type MemoryChange } from './memory-slots.ts';
import type { VhostMessage } from './message-reader.ts';
import type { MappedFile, RingMemory, VhostPlatform } from './platform.ts';

const HIGH = 2 ** 32;

/** What the features say about memory. */
export interface MemoryUse {
  /** Addresses are the IOMMU's. */
  readonly translated: boolean;
  /** Writes are logged. */
  readonly logged: boolean;
}

/** The guest's memory in one session. */
export class GuestMemory {
  readonly slots: MemorySlots;
  readonly #platform: VhostPlatform;
  readonly #iotlb: Iotlb;
  #table = new RegionTable([]);
  #logFile: MappedFile | undefined;
  #log: DirtyLog | undefined;

  /** @param miss asks the frontend for a translation */
  constructor(platform: VhostPlatform, miss: (iova: number, right: number) => void) {
    this.#platform = platform;
    this.slots = new MemorySlots(platform);
    this.#iotlb = new Iotlb(miss);
  }

  /** The memory as rings use it. Throws ProtocolViolation when writes are to be logged and there is no log. */
  forRings({ translated, logged }: MemoryUse): RingMemory {
    return {
      table: this.#table,
      iotlb: translated ? this.#iotlb : undefined,
      log: logged ? this.#log : undefined,
    };
  }

  /** Takes regions into use, and ends the mappings that they replace: no ring runs. */
  change(change: MemoryChange): void {
    this.#table = change.table;
    change.commit();
  }

  /** Maps the log that a message brings; it is used once it is taken, while no ring runs. */
  newLog({ payload, fds }: VhostMessage): () => void {
    const { mmap_size, mmap_offset } = vhostUserLog.over(payload);
    const file = mapFile(this.#platform, 'vhost-user SET_LOG_BASE', fds[0], mmap_offset, mmap_size);
    return () => {
      this.#logFile?.close();
      this.#logFile = file;
      this.#log = new DirtyLog(file.region);
    };
  }

  /** A message about translations. Returns true when rings must not run while it is applied. */
  static isInvalidation({ payload }: VhostMessage): boolean {
    return vhostUserIotlb.over(payload).type === VHOST_IOTLB_INVALIDATE;
  }

  /** Applies a message about translations. Throws ProtocolViolation for one that cannot be. */
  translate({ payload }: VhostMessage): void {
    const entry = vhostUserIotlb.over(payload);
    const iova = entry.iovaHigh * HIGH + entry.iovaLow;
    if (entry.type === VHOST_IOTLB_INVALIDATE) this.#iotlb.invalidate(iova, entry.size);
    else if (entry.type === VHOST_IOTLB_UPDATE)
      this.#iotlb.update({
        iova,
        user: entry.user_addressHigh * HIGH + entry.user_addressLow,
        size: entry.size,
        right: entry.permission,
      });
    else throw new ProtocolViolation('vhost-user IOTLB', `a message of type ${entry.type}`);
  }

  /** The device was reset: the IOMMU tells anew. */
  forgetTranslations(): void {
    this.#iotlb.invalidate(0, Number.POSITIVE_INFINITY);
  }

  /** Ends all mappings: no ring runs any more. */
  close(): void {
    this.slots.close();
    this.#logFile?.close();
    this.#logFile = undefined;
    this.#log = undefined;
  }
}
