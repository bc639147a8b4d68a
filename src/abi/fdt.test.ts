import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  FDT_HEADER_FIELDS,
  FDT_HEADER_SIZE,
  type FdtHeader,
  fdtAlign,
  readFdtHeader,
  writeFdtHeader,
} from './fdt.ts';

test('the header has the offsets of the Devicetree Specification §5.2, big endian', () => {
  const bytes = new Uint8Array(FDT_HEADER_SIZE);
  bytes.set([0xd0, 0x0d, 0xfe, 0xed], 0);
  bytes.set([0, 0, 0x12, 0x34], 4);
  for (let field = 2; field < 10; field++) bytes[field * 4 + 3] = field;
  assert.equal(FDT_HEADER_SIZE, 40);
  assert.deepEqual(readFdtHeader(new DataView(bytes.buffer)), {
    magic: 0xd00dfeed,
    totalsize: 0x1234,
    off_dt_struct: 2,
    off_dt_strings: 3,
    off_mem_rsvmap: 4,
    version: 5,
    last_comp_version: 6,
    boot_cpuid_phys: 7,
    size_dt_strings: 8,
    size_dt_struct: 9,
  });
});

test('a header is read as it was written', () => {
  const values = FDT_HEADER_FIELDS.map((name, index) => [name, 0xfffffff0 + index]);
  const header = Object.fromEntries(values) as FdtHeader;
  const view = new DataView(new ArrayBuffer(FDT_HEADER_SIZE));
  writeFdtHeader(view, header);
  assert.deepEqual(readFdtHeader(view), header);
});

test('tokens stand on boundaries of 4', () => {
  assert.deepEqual([0, 1, 3, 4, 5].map(fdtAlign), [0, 4, 4, 4, 8]);
});
