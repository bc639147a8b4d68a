// Flattened device tree, version 17: header, memory reservations and the tokens of the structure block
// (Devicetree Specification v0.4 §5). Big endian throughout, so it has codecs of its own instead of a
// struct declaration. toolstack/device-tree/blob-reader.ts and blob-writer.ts do whole trees.

/** First word of a blob. */
export const FDT_MAGIC = 0xd00dfeed;
/** The version written here, and the oldest one whose readers understand it. */
export const FDT_VERSION = 17;
export const FDT_LAST_COMP_VERSION = 16;

/** Tokens of the structure block, each on a boundary of 4 bytes (§5.4.1). */
export const FDT_BEGIN_NODE = 1;
export const FDT_END_NODE = 2;
export const FDT_PROP = 3;
export const FDT_NOP = 4;
export const FDT_END = 9;

/** The header's fields in their order, four bytes each (§5.2). */
export const FDT_HEADER_FIELDS = [
  'magic',
  'totalsize',
  'off_dt_struct',
  'off_dt_strings',
  'off_mem_rsvmap',
  'version',
  'last_comp_version',
  'boot_cpuid_phys',
  'size_dt_strings',
  'size_dt_struct',
] as const;

/** Bytes of the header. */
export const FDT_HEADER_SIZE = FDT_HEADER_FIELDS.length * 4;
/** Bytes of a memory reservation: address and size, eight bytes each; one of zeroes ends the list (§5.3). */
export const FDT_RESERVATION_SIZE = 16;

/** The header of a blob, under the specification's names. */
export type FdtHeader = Readonly<Record<(typeof FDT_HEADER_FIELDS)[number], number>>;

/** Reads the header at the start of `blob`, which must have at least FDT_HEADER_SIZE bytes. Checks nothing. */
export function readFdtHeader(blob: DataView): FdtHeader {
  const values = FDT_HEADER_FIELDS.map((name, index) => [name, blob.getUint32(index * 4)]);
  // The names are those of the type; fromEntries forgets that.
  return Object.fromEntries(values) as FdtHeader;
}

/** Writes the header to the start of `blob`. */
export function writeFdtHeader(blob: DataView, header: FdtHeader): void {
  for (const [index, name] of FDT_HEADER_FIELDS.entries()) blob.setUint32(index * 4, header[name]);
}

/** `size` rounded up to the next multiple of 4, where the next token stands. */
export function fdtAlign(size: number): number {
  return (size + 3) & ~3;
}
