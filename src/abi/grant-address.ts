// The DMA address that stands for a grant: 1 << 63 | reference << 12 | offset in the page, as Linux's
// drivers/xen/grant-dma-ops.c uses it. What a frontend puts into a descriptor, and a backend decodes.
//
// Addresses are two u32 halves, for no hot path may touch a bigint. Decoding is strict where others are
// not: bits 44-62 must be clear, so that no two addresses name the same byte (cases G4 and G5).

import { XEN_PAGE_SHIFT } from './xen.ts';

/** The value of a failed mapping: ~0, in both halves. No grant has this address. */
export const DMA_MAPPING_ERROR_HALF = 0xffff_ffff;

const GRANT_BIT = 0x8000_0000;
/** Bits 12-31 of a reference lie in the low 12 bits of the upper half; those above must be clear. */
const REFERENCE_HIGH_MASK = 0x0000_0fff;
const OFFSET_MASK = 0xfff;

/** Lower half of the address of byte `offset` (0-4095) in the page behind `ref`. */
export function grantAddressLow(ref: number, offset: number): number {
  return ((ref << XEN_PAGE_SHIFT) | offset) >>> 0;
}

/** Upper half of the address of a byte in the page behind `ref`. */
export function grantAddressHigh(ref: number): number {
  return (GRANT_BIT | (ref >>> 20)) >>> 0;
}

/** Why an upper half is no grant's: bit 63 clear, or one of bits 44-62 set; undefined when it is one. */
export function grantAddressFault(high: number): string | undefined {
  if ((high & GRANT_BIT) === 0) return 'bit 63 is clear: a plain address, not a grant';
  if ((high & ~(GRANT_BIT | REFERENCE_HIGH_MASK)) !== 0) return 'bits 44-62 are not clear';
  return undefined;
}

/** Whether the upper half is a grant's. */
export function isGrantAddress(high: number): boolean {
  return (high & ~REFERENCE_HIGH_MASK) >>> 0 === GRANT_BIT;
}

/** The reference of an address whose upper half is a grant's. */
export function grantAddressRef(low: number, high: number): number {
  return (((high & REFERENCE_HIGH_MASK) << 20) | (low >>> XEN_PAGE_SHIFT)) >>> 0;
}

/** The offset in the page. */
export function grantAddressOffset(low: number): number {
  return low & OFFSET_MASK;
}

/** Pages that `size` bytes touch when they start `offset` bytes into the first one. */
export function pagesTouched(offset: number, size: number): number {
  return Math.ceil(((offset & OFFSET_MASK) + size) / 4096);
}

/** "0x80000000_00044aa8", for messages. */
export function formatAddress(low: number, high: number): string {
  return `0x${high.toString(16).padStart(8, '0')}_${low.toString(16).padStart(8, '0')}`;
}
