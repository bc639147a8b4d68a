// Vectors: a grant's DMA address, in both directions.

import { decodeGrant, encodeGrant, type GrantFault } from '../abi/grant-range.ts';
import { hex64, type Refused, type Vector, type VectorGroup } from './vector.ts';

interface Encode {
  readonly operation: 'encode';
  readonly reference: number;
  readonly offset: number;
}

interface Decode {
  readonly operation: 'decode';
  readonly address: string;
  /** Bytes from the address on; not there if the question is about the address alone. */
  readonly length?: number;
}

interface Place {
  readonly reference: number;
  readonly offset: number;
  readonly pages?: number;
  readonly lastReference?: number;
}

type Answer = { readonly address: string } | Place | Refused<GrantFault>;

export type AddressVector = Vector<Encode | Decode, Answer>;

const LINUX = 'Linux, drivers/xen/grant-dma-ops.c: XEN_GRANT_DMA_ADDR_OFF and grant_to_dma()';
const REVIEW =
  'review of the patch "virtio: add option to restrict memory access under Xen", April 2022: the constant is 1ULL << 63';
const STRICT = 'a decoder that ignores bits gives one byte many addresses; drivers never set bits 44-62';
const CUT = 'Linux dma_to_grant() and vm-memory src/mmap/xen.rs, which cut the reference to 32 bits';

function encode(id: string, source: string, reference: number, offset: number, wrong?: bigint, by = '') {
  const address = encodeGrant(reference, offset);
  const vector: AddressVector = {
    id,
    source,
    input: { operation: 'encode', reference, offset },
    expected: typeof address === 'bigint' ? { address: hex64(address) } : { refused: address.fault },
  };
  return wrong === undefined ? vector : { ...vector, wrong: [{ by, answer: { address: hex64(wrong) } }] };
}

function decode(id: string, source: string, address: bigint, length?: number, wrong?: Place): AddressVector {
  const range = decodeGrant(address, length);
  const input = { operation: 'decode' as const, address: hex64(address) };
  const vector: AddressVector = {
    id,
    source,
    input: length === undefined ? input : { ...input, length },
    expected:
      'fault' in range
        ? { refused: range.fault }
        : length === undefined
          ? { reference: range.reference, offset: range.offset }
          : range,
  };
  return wrong === undefined ? vector : { ...vector, wrong: [{ by: CUT, answer: wrong }] };
}

const NIT = 'code that follows the review comment "(1ULL << 31)" to the letter';
const CARRY =
  'the patch of April 2022, and Linux before 875553e317b2: grant_to_dma(grant) + offset, which carries into the reference';

const encoded: readonly AddressVector[] = [
  encode('encode-0', LINUX, 0, 0),
  encode('encode-1', LINUX, 1, 0, 0x80001000n, NIT),
  encode('encode-first-not-reserved', LINUX, 8, 0, 0x80008000n, NIT),
  encode(
    'encode-trace',
    'a trace of virtio-net on Arm, quoted in the thread of Linux 875553e317b2',
    0x44,
    0xaa8,
  ),
  encode('encode-bit-31', REVIEW, 0x80000, 0, 0x80000000n, NIT),
  encode('encode-low-half-full', LINUX, 0xfffff, 0xfff),
  encode('encode-high-half', LINUX, 0x100000, 0),
  encode('encode-sign-bit', LINUX, 0x80000000, 0x800),
  encode('encode-largest', LINUX, 0xffffffff, 0xfff),
  encode('encode-offset-past-page', LINUX, 0x44, 0x1000, 0x8000000000045000n, CARRY),
  encode('encode-offset-in-fourth-page', LINUX, 8, 0x3aa8, 0x800000000000baa8n, CARRY),
  encode(
    'encode-reference-past-32-bits',
    'Xen, public/grant_table.h: grant_ref_t is uint32_t',
    0x100000000,
    0,
  ),
];

const decoded: readonly AddressVector[] = [
  decode('decode-0', LINUX, 0x8000000000000000n),
  decode('decode-1', LINUX, 0x8000000000001000n),
  decode('decode-first-not-reserved', LINUX, 0x8000000000008000n),
  decode(
    'decode-trace',
    'a trace of virtio-net on Arm, quoted in the thread of Linux 875553e317b2',
    0x8000000000044aa8n,
  ),
  decode('decode-low-half-full', LINUX, 0x80000000ffffffffn),
  decode('decode-high-half', LINUX, 0x8000000100000000n),
  decode('decode-sign-bit', LINUX, 0x8000080000000800n),
  decode('decode-largest', LINUX, 0x80000fffffffffffn),
  decode(
    'decode-plain',
    'without bit 63 it is a guest-physical address, which no restricted device uses',
    0x44aa8n,
  ),
  decode('decode-plain-bit-31', REVIEW, 0x80044aa8n),
  decode('decode-plain-highest', LINUX, 0x7fffffffffffffffn),
  decode(
    'decode-0-plain',
    'the value of a failed mapping in the patch of April 2022: a plain address like others',
    0n,
  ),
  ...[44, 45, 47, 52, 56, 61, 62].map((bit) =>
    decode(`decode-bit-${bit}`, STRICT, 0x8000000000044aa8n | (1n << BigInt(bit)), undefined, {
      reference: 0x44,
      offset: 0xaa8,
    }),
  ),
  decode(
    'decode-mapping-error',
    'Linux, include/linux/dma-mapping.h: DMA_MAPPING_ERROR is all ones',
    0xffffffffffffffffn,
    undefined,
    { reference: 0xffffffff, offset: 0xfff },
  ),
  decode('decode-range-in-page', LINUX, 0x8000000000044aa8n, 0x3a0),
  decode('decode-range-two-pages', LINUX, 0x8000000000008ff0n, 0x20),
  decode('decode-range-of-4-gib', LINUX, 0x8000000000008fffn, 0xffffffff),
  decode('decode-range-to-the-end', LINUX, 0x80000ffffffffff0n, 0x10),
  decode(
    'decode-range-past-the-end',
    'references have 32 bits: the range would go on at reference 0',
    0x80000ffffffffff0n,
    0x11,
  ),
  decode(
    'decode-range-far-past-the-end',
    'references have 32 bits: the range would go on at reference 0',
    0x80000ffffffff000n,
    0xffffffff,
  ),
  decode(
    'decode-range-empty',
    'by its source, Linux asks for 0 consecutive references and damages its free list',
    0x8000000000044aa8n,
    0,
  ),
];

/** The group. */
export const addressCodec: VectorGroup<AddressVector> = {
  group: 'address-codec',
  format: 1,
  about:
    'A DMA address stands for a byte of a granted page: 1 << 63 | reference << 12 | offset. Encode: reference and offset to address. Decode: address to reference and offset; with a length in bytes, also the number of pages touched and the reference of the last one. Everything else is refused.',
  vectors: [...encoded, ...decoded],
};
