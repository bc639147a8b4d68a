// What a session knows of the guest's memory: its regions and the dirty log; and what its IOMMU's messages mean.
// Changes are prepared here and applied while no ring runs. After session.ts, before memory-slots.ts.

import {
  VHOST_IOTLB_INVALIDATE,
  VHOST_IOTLB_UPDATE,
  vhostUserIotlb,
  vhostUserLog,
} from '../../abi/vhost-user.ts';
import { ProtocolViolation } from '../../errors.ts';
import type { MemoryRegion } from '../../memory/region-table.ts';
import { mapFile } from './map-file.ts';
import { MemorySlots, type MemoryChange } from './memory-slots.ts';
import type { VhostMessage } from './message-reader.ts';
import type { GrantedRegion, MappedFile, RingMemory, RingRunner, VhostPlatform } from './platform.ts';

const HIGH = 2 ** 32;

/** What the features say about memory. */
export interface MemoryUse {
  /** Addresses are the IOMMU's. */
  readonly translated: boolean;
  /** Each address that is missed is answered. */
  readonly missesAnswered: boolean;
  /** Writes are logged. */
  readonly logged: boolean;
}

/** The guest's memory in one session. */
export class GuestMemory {
  readonly slots: MemorySlots;
  readonly #platform: VhostPlatform;
  #regions: readonly MemoryRegion[] = [];
  #granted: readonly GrantedRegion[] = [];
  #log: MappedFile | undefined;

  constructor(platform: VhostPlatform) {
    this.#platform = platform;
    this.slots = new MemorySlots(platform);
  }

  /** The memory as rings use it. */
  forRings({ translated, missesAnswered, logged }: MemoryUse): RingMemory {
    return {
      regions: this.#regions,
      granted: this.#granted,
      ...{ translated, missesAnswered },
      log: logged ? this.#log?.region : undefined,
    };
  }

  /** Takes regions into use, and ends the mappings that they replace: no ring runs. */
  change(change: MemoryChange): void {
    this.#regions = change.regions;
    this.#granted = change.granted;
    change.commit();
  }

  /** Maps the log that a message brings; it is used once it is taken, while no ring runs. */
  newLog({ payload, fds }: VhostMessage): () => void {
    const { mmap_size, mmap_offset } = vhostUserLog.over(payload);
    const file = mapFile(this.#platform, 'vhost-user SET_LOG_BASE', fds[0], mmap_offset, mmap_size);
    return () => {
      this.#log?.close();
      this.#log = file;
    };
  }

  /** A message about translations. Returns true when rings must not run while it is applied. */
  static isInvalidation({ payload }: VhostMessage): boolean {
    return vhostUserIotlb.over(payload).type === VHOST_IOTLB_INVALIDATE;
  }

  /** Tells the runner what a message about translations says. Throws ProtocolViolation for one that makes no sense. */
  static translate({ payload }: VhostMessage, runner: RingRunner): void {
    const entry = vhostUserIotlb.over(payload);
    const iova = entry.iovaHigh * HIGH + entry.iovaLow;
    if (entry.type === VHOST_IOTLB_INVALIDATE) runner.invalidate(iova, entry.size);
    else if (entry.type === VHOST_IOTLB_UPDATE)
      runner.translate({
        iova,
        user: entry.user_addressHigh * HIGH + entry.user_addressLow,
        size: entry.size,
        right: entry.permission,
      });
    else
      throw new ProtocolViolation(
        'vhost-user IOTLB',
        `a message of type ${entry.type}, expected ${VHOST_IOTLB_UPDATE} or ${VHOST_IOTLB_INVALIDATE}`,
      );
  }

  /** Ends all mappings: no ring runs any more. */
  close(): void {
    this.slots.close();
    this.#regions = [];
    this.#granted = [];
    this.#log?.close();
    this.#log = undefined;
  }
}
