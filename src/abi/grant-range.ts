// Grant addresses as whole 64-bit numbers, with every check and a reason for each refusal: for people and tests.
// Rings and devices use the two halves instead (grant-address.ts).

import {
  grantAddressFault,
  grantAddressHigh,
  grantAddressLow,
  grantAddressOffset,
  grantAddressRef,
  pagesTouched,
} from './grant-address.ts';
import { XEN_PAGE_SIZE } from './xen.ts';

/** Largest reference: they are 32 bits wide. */
export const GRANT_REF_MAX = 0xffff_ffff;
/** Largest number that an address can be. */
export const ADDRESS_MAX = (1n << 64n) - 1n;

/** What an address, or a range of them, names. */
export interface GrantRange {
  /** Of the first page. */
  readonly reference: number;
  /** In the first page. */
  readonly offset: number;
  readonly pages: number;
  /** Of the last page: references of a range are consecutive. */
  readonly lastReference: number;
}

/** Why there is no such address or range. */
export type GrantFault =
  | 'not-64-bits'
  | 'bit-63-clear'
  | 'bits-44-62-set'
  | 'empty'
  | 'past-last-reference'
  | 'reference-past-32-bits'
  | 'offset-past-page';

/** A refusal. */
export interface GrantRefusal {
  readonly fault: GrantFault;
  /** For people: goes on after "not a grant address: ". */
  readonly reason: string;
}

const hex = (value: number | bigint): string => `0x${value.toString(16)}`;

/** The address of byte `offset` in the page behind `reference`. */
export function encodeGrant(reference: number, offset: number): bigint | GrantRefusal {
  if (!Number.isInteger(reference) || reference < 0 || reference > GRANT_REF_MAX)
    return refused('reference-past-32-bits', `reference ${reference} is none of 0 to ${hex(GRANT_REF_MAX)}`);
  if (!Number.isInteger(offset) || offset < 0 || offset >= XEN_PAGE_SIZE)
    return refused(
      'offset-past-page',
      `offset ${offset} is none of 0 to 4095: it would change the reference`,
    );
  return (BigInt(grantAddressHigh(reference)) << 32n) | BigInt(grantAddressLow(reference, offset));
}

/** What `length` bytes from `address` on are. Strict: each byte of each page has one address. */
export function decodeGrant(address: bigint, length = 1): GrantRange | GrantRefusal {
  if (address < 0n || address > ADDRESS_MAX) return refused('not-64-bits', 'it has more than 64 bits');
  const low = Number(address & 0xffff_ffffn);
  const high = Number(address >> 32n);
  if (grantAddressFault(high) !== undefined) return refusedAddress(address, low, high);
  if (length === 0) return refused('empty', 'a length of 0 touches no page');
  const reference = grantAddressRef(low, high);
  const offset = grantAddressOffset(low);
  const pages = pagesTouched(offset, length);
  const lastReference = reference + pages - 1;
  if (lastReference > GRANT_REF_MAX)
    return refused(
      'past-last-reference',
      `${hex(length)} bytes from reference ${hex(reference)}, offset ${hex(offset)}, run past the last reference`,
    );
  return { reference, offset, pages, lastReference };
}

function refusedAddress(address: bigint, low: number, high: number): GrantRefusal {
  if (address >> 63n === 0n) return refused('bit-63-clear', 'bit 63 is clear, so it is a plain address');
  if (address === ADDRESS_MAX)
    return refused('bits-44-62-set', 'all bits are set, the value of a failed mapping (DMA_MAPPING_ERROR)');
  const place = `grant ${hex(grantAddressRef(low, high))}, offset ${hex(grantAddressOffset(low))}`;
  return refused(
    'bits-44-62-set',
    `of bits 44-62, ${setBits(address)} set; a decoder that ignores them takes it for ${place}`,
  );
}

/** "44 and 62 are", of the bits that have to be clear. */
function setBits(address: bigint): string {
  const bits = Array.from({ length: 19 }, (_, index) => 44 + index).filter(
    (bit) => (address >> BigInt(bit)) & 1n,
  );
  const last = bits.pop();
  return bits.length === 0 ? `${last} is` : `${bits.join(', ')} and ${last} are`;
}

function refused(fault: GrantFault, reason: string): GrantRefusal {
  return { fault, reason };
}
