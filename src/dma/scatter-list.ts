// Lists of buffers that are mapped together (map_sg and its relatives in Linux's DMA API), made of the
// operations on single buffers, so that every exposure mode has them.

import { DMA_ATTR_SKIP_CPU_SYNC, type DmaAddress, type DmaOperations } from './dma.ts';

/** One buffer of a list; `low` and `high` are where the device finds it while the list is mapped. */
export interface ScatterElement extends DmaAddress {
  /** Guest-physical address. */
  readonly address: number;
  /** Bytes. */
  readonly size: number;
}

/** An element that is not mapped. */
export function scatterElement(address: number, size: number): ScatterElement {
  return { address, size, low: 0, high: 0 };
}

/**
 * Maps every element for `direction`.
 *
 * @returns false when one of them cannot be mapped now: none is then, and all addresses are 0 (case G9)
 */
export function mapScatter(
  dma: DmaOperations,
  list: readonly ScatterElement[],
  direction: number,
  attributes = 0,
): boolean {
  for (const [index, element] of list.entries()) {
    if (dma.map(element.address, element.size, direction, element, attributes)) continue;
    element.low = element.high = 0;
    // What was copied in is not copied back: no device has seen it.
    for (let mapped = index - 1; mapped >= 0; mapped--) unmapElement(dma, list[mapped], direction, true);
    return false;
  }
  return true;
}

/**
 * Ends the mapping of every element.
 *
 * @returns false when the device can still reach pages of the caller's own
 */
export function unmapScatter(
  dma: DmaOperations,
  list: readonly ScatterElement[],
  direction: number,
  attributes = 0,
): boolean {
  let released = true;
  for (const element of list) {
    if (!unmapElement(dma, element, direction, (attributes & DMA_ATTR_SKIP_CPU_SYNC) !== 0)) released = false;
  }
  return released;
}

/** Lets the driver see what the device has written so far to every element. */
export function syncScatterForCpu(
  dma: DmaOperations,
  list: readonly ScatterElement[],
  direction: number,
): void {
  for (const { low, high, size } of list) dma.syncForCpu(low, high, size, direction);
}

/** Lets the device see what the driver has changed in every element. */
export function syncScatterForDevice(
  dma: DmaOperations,
  list: readonly ScatterElement[],
  direction: number,
): void {
  for (const { low, high, size } of list) dma.syncForDevice(low, high, size, direction);
}

function unmapElement(
  dma: DmaOperations,
  element: ScatterElement,
  direction: number,
  skipSync: boolean,
): boolean {
  const { low, high, size } = element;
  element.low = element.high = 0;
  return dma.unmap(low, high, size, direction, skipSync ? DMA_ATTR_SKIP_CPU_SYNC : 0);
}
