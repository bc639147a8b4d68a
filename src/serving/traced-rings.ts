// The rings of a session, and the trace of what they can reach: each message about the guest's memory is reported when
// it opens access before the workers learn of it, and when it ends access after they have. There is one of these for a
// device, whatever the number of workers: each of them holds the same translations.
// After vhost-connection.ts, before spread-rings.ts and device-reach.ts.

import { Iotlb, type Translation } from '../memory/iotlb.ts';
import type { RingMemory, RingRunner, RingSetup } from '../transports/vhost-user/platform.ts';
import type { DeviceReach } from './device-reach.ts';
import type { RingNeeds } from './ring-needs.ts';

/** A runner in front of another one. */
export class TracedRings implements RingRunner {
  readonly #rings: RingRunner;
  readonly #reach: DeviceReach;
  readonly #needs: RingNeeds;
  #translated = false;
  /** What each worker's own has in it: it forgets what theirs forget. */
  readonly #iotlb: Iotlb;

  constructor(rings: RingRunner, reach: DeviceReach, needs: RingNeeds) {
    this.#rings = rings;
    this.#reach = reach;
    this.#needs = needs;
    this.#iotlb = new Iotlb(() => undefined, reach);
  }

  setFeatures(features: bigint): void {
    this.#rings.setFeatures(features);
  }

  setMemory(memory: RingMemory): void {
    this.#translated = memory.translated;
    this.#reach.setMemory(memory.regions, memory.translated);
    this.#rings.setMemory(memory);
    this.#reach.settle();
  }

  translate(entry: Translation): void {
    this.#iotlb.update(entry);
    this.#rings.translate(entry);
    this.#reach.settle();
  }

  invalidate(iova: number, size: number): void {
    this.#iotlb.invalidate(iova, size);
    this.#rings.invalidate(iova, size);
    this.#reach.settle();
    this.#needs.endIn(iova, size);
  }

  refuse(iova: number): void {
    this.#rings.refuse(iova);
  }

  start(ring: RingSetup): boolean {
    const runs = this.#rings.start(ring);
    // Without an IOMMU rings have no addresses of the guest's.
    if (runs && this.#translated) this.#needs.begin(ring);
    return runs;
  }

  stop(index: number): number {
    return this.#rings.stop(index);
  }

  setCall(index: number, fd: number): void {
    this.#rings.setCall(index, fd);
  }

  kick(index: number): void {
    this.#rings.kick(index);
  }

  reset(): void {
    this.#rings.reset();
  }

  /** The session has ended, and with it all access. */
  close(): void {
    this.#reach.setMemory([], false);
    this.#reach.settle();
    this.#needs.endIn(0, Number.POSITIVE_INFINITY);
  }
}
