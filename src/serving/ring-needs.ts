// What the rings of a device behind an IOMMU need of its memory, as events: from when a ring runs until it lies elsewhere,
// its memory is taken away, or the device is reset. A ring that pauses, as each invalidation makes it, needs its memory
// all the same. After traced-rings.ts, before trace.ts.

import { splitRingSizes } from '../abi/split-ring.ts';
import { DMA_BIDIRECTIONAL, type Tracer } from '../trace.ts';
import type { RingSetup } from '../transports/vhost-user/platform.ts';
import { DEVICE } from './traced-numbers.ts';

const HIGH = 2 ** 32;
const PAGE = 4096;

/** A part of a ring, by its I/O address. */
interface Area {
  readonly iova: number;
  readonly size: number;
}

/** The needs of one device's rings. */
export class RingNeeds {
  readonly #tracer: Tracer;
  /** The guest. */
  readonly #domain: number;
  readonly #rings = new Map<number, readonly Area[]>();

  /** @param domain the guest, by its number in the trace */
  constructor(tracer: Tracer, domain: number) {
    this.#tracer = tracer;
    this.#domain = domain;
  }

  /** A ring runs. */
  begin(ring: RingSetup): void {
    const areas = areasOf(ring);
    const before = this.#rings.get(ring.index);
    if (before?.every(({ iova, size }, i) => iova === areas[i].iova && size === areas[i].size)) return;
    if (before !== undefined) this.#end(ring.index, before);
    this.#rings.set(ring.index, areas);
    for (const { iova, size } of areas)
      this.#tracer.need(this.#domain, DEVICE, pageOf(iova), iova % PAGE, size, DMA_BIDIRECTIONAL);
  }

  /** The memory at [iova, iova + size) is out of reach. */
  endIn(iova: number, size: number): void {
    for (const [index, areas] of this.#rings)
      if (areas.some((area) => area.iova < iova + size && area.iova + area.size > iova))
        this.#end(index, areas);
  }

  #end(index: number, areas: readonly Area[]): void {
    this.#rings.delete(index);
    for (const { iova, size } of areas)
      this.#tracer.needEnd(this.#domain, DEVICE, pageOf(iova), iova % PAGE, size);
  }
}

function pageOf(address: number): number {
  return Math.floor(address / PAGE);
}

function areasOf({ size, places }: RingSetup): readonly Area[] {
  const bytes = splitRingSizes(size);
  return [
    { iova: places.descriptorHigh * HIGH + places.descriptorLow, size: bytes.descriptor },
    { iova: places.driverHigh * HIGH + places.driverLow, size: bytes.driver },
    { iova: places.deviceHigh * HIGH + places.deviceLow, size: bytes.device },
  ];
}
