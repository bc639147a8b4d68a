// A device's registers and journals in memory that outlives this process, such as a file of /run: each request is done at
// least once and reported exactly once, wherever the process was killed (case C1). After xen-records.ts; the journals are
// those of vhost-user (transports/vhost-user/inflight-journal.ts).
//
// A register is kept after it was written and before the guest goes on. A process that is killed in between leaves the
// access to its successor, which does it once more: whatever was half kept is kept again then.

import { KEPT_DEVICE_LAYOUT, KEPT_DEVICE_MAGIC, keptDevice, keptQueue } from '../abi/kept-device.ts';
import type { Region } from '../abi/region.ts';
import { inflightQueueSize } from '../abi/vhost-user-inflight.ts';
import { ProtocolViolation } from '../errors.ts';
import {
  type InflightArea,
  InflightJournal,
  initialiseInflight,
  recoverInflight,
} from '../transports/vhost-user/inflight-journal.ts';
import type { DeviceOffer } from '../virtio/device.ts';
import type { DeviceKeeper, KeptRegisters } from '../virtio/device-keeper.ts';
import type { QueueRegisters } from '../virtio/queue-registers.ts';
import type { QueueJournals } from '../virtqueue/queue-journal.ts';

/** Journals begin at multiples of this. */
const ALIGNMENT = 64;

/** A device, as far as its record depends on it. */
type KeptOffer = Pick<DeviceOffer, 'queueSizes'> & { readonly deviceId: number };

/** Bytes of the record of a device, a multiple of 64. */
export function keptDeviceSize(queueSizes: readonly number[]): number {
  return queueSizes.reduce((sum, size) => sum + inflightQueueSize(size), journalsAt(queueSizes.length));
}

function journalsAt(queues: number): number {
  return Math.ceil((keptDevice.size + queues * keptQueue.size) / ALIGNMENT) * ALIGNMENT;
}

/** The record of one device. */
export class KeptDevice implements DeviceKeeper {
  readonly journals: QueueJournals;
  readonly #region: Region;
  readonly #offer: KeptOffer;
  readonly #end: (forget: boolean) => void;
  #ended = false;
  readonly #device;
  readonly #queue;

  /**
   * @param region of `keptDeviceSize`, zeroed where there was no predecessor
   * @param end called once, when the memory is not used any more; `forget` if there is nothing to go on with
   */
  constructor(region: Region, offer: KeptOffer, end: (forget: boolean) => void) {
    this.#region = region;
    this.#offer = offer;
    this.#end = end;
    this.#device = keptDevice.over(region.u8);
    this.#queue = keptQueue.over(region.u8);
    this.journals = {
      begin: (index, size) => {
        const area = this.#area(index);
        initialiseInflight(area, size, 0);
        return { base: 0, used: 0, again: [], journal: new InflightJournal(area, 0) };
      },
      resume: (index, size, used) => {
        const start = recoverInflight(this.#area(index), size, used, 0);
        if (start.journal !== undefined) return start;
        throw new ProtocolViolation('§2.7', `nothing was kept of queue ${index}`);
      },
    };
  }

  /** Throws an error, for people, when it is the record of another device. */
  load(): KeptRegisters | undefined {
    const { magic, layout, queues, device_id } = this.#device;
    const { queueSizes, deviceId } = this.#offer;
    if (magic === 0) return undefined;
    if (magic !== KEPT_DEVICE_MAGIC || layout !== KEPT_DEVICE_LAYOUT)
      throw new Error(`the record of a predecessor is of layout ${layout}, expected ${KEPT_DEVICE_LAYOUT}`);
    if (device_id !== deviceId || queues !== queueSizes.length)
      throw new Error(
        `a predecessor served the guest a device of type ${device_id} with ${queues} queues there, this one has type ` +
          `${deviceId} with ${queueSizes.length}: start it as that was started`,
      );
    const { status, driver_features, device_features_sel, driver_features_sel, queue_sel } = this.#device;
    return {
      ...{ status, driverFeatures: driver_features },
      queues: queueSizes.map((_, index) => this.#loadQueue(index)),
      selectors: [device_features_sel, driver_features_sel, queue_sel],
    };
  }

  save({ status, driverFeatures, queues, selectors }: KeptRegisters): void {
    for (const [index, registers] of queues.entries()) this.#saveQueue(index, registers);
    const device = this.#device;
    [device.device_features_sel, device.driver_features_sel, device.queue_sel] = selectors;
    device.driver_features = driverFeatures;
    device.status = status;
    device.device_id = this.#offer.deviceId;
    device.queues = queues.length;
    device.layout = KEPT_DEVICE_LAYOUT;
    // Last: without it there is nothing to go on with.
    device.magic = KEPT_DEVICE_MAGIC;
  }

  forget(): void {
    this.#finish(true);
  }

  close(): void {
    this.#finish(false);
  }

  #finish(forget: boolean): void {
    if (this.#ended) return;
    this.#ended = true;
    // Where nothing was kept, as of a device that could not be served, there is nothing to go on with either.
    this.#end(forget || this.#device.magic === 0);
  }

  #area(index: number): InflightArea {
    const { queueSizes } = this.#offer;
    const offset = queueSizes
      .slice(0, index)
      .reduce((sum, size) => sum + inflightQueueSize(size), journalsAt(queueSizes.length));
    return { region: this.#region, offset };
  }

  #queueAt(index: number) {
    return this.#queue.at(keptDevice.size + index * keptQueue.size);
  }

  #loadQueue(index: number): QueueRegisters {
    const { size, enabled, was_reset, ...rest } = readQueue(this.#queueAt(index));
    return { size, enabled: enabled !== 0, wasReset: was_reset !== 0, ...rest };
  }

  #saveQueue(index: number, { enabled, wasReset, ...rest }: QueueRegisters): void {
    const queue = this.#queueAt(index);
    Object.assign(queue, rest);
    queue.was_reset = wasReset ? 1 : 0;
    queue.enabled = enabled ? 1 : 0;
  }
}

/** The fields of a record, which are accessors, as plain values. */
function readQueue(queue: ReturnType<typeof keptQueue.over>) {
  const { size, enabled, was_reset, descriptorLow, descriptorHigh } = queue;
  const { driverLow, driverHigh, deviceLow, deviceHigh } = queue;
  return {
    size,
    enabled,
    was_reset,
    descriptorLow,
    descriptorHigh,
    driverLow,
    driverHigh,
    deviceLow,
    deviceHigh,
  };
}
