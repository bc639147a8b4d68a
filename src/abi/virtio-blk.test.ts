// The block device's layouts and numbers against the listings of virtio 1.3 §5.2.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as blk from './virtio-blk.ts';

test('§5.2.4 struct virtio_blk_config, field by field', () => {
  assert.deepEqual(
    blk.virtioBlkConfig.fields.map(({ name, offset, size }) => [name, offset, size]),
    [
      ['capacity', 0, 8],
      ['size_max', 8, 4],
      ['seg_max', 12, 4],
      ['cylinders', 16, 2],
      ['heads', 18, 1],
      ['sectors', 19, 1],
      ['blk_size', 20, 4],
      ['physical_block_exp', 24, 1],
      ['alignment_offset', 25, 1],
      ['min_io_size', 26, 2],
      ['opt_io_size', 28, 4],
      ['writeback', 32, 1],
      ['unused0', 33, 1],
      ['num_queues', 34, 2],
      ['max_discard_sectors', 36, 4],
      ['max_discard_seg', 40, 4],
      ['discard_sector_alignment', 44, 4],
      ['max_write_zeroes_sectors', 48, 4],
      ['max_write_zeroes_seg', 52, 4],
      ['write_zeroes_may_unmap', 56, 1],
      ['unused1', 57, 3],
      ['max_secure_erase_sectors', 60, 4],
      ['max_secure_erase_seg', 64, 4],
      ['secure_erase_sector_alignment', 68, 4],
      ['zone_sectors', 72, 4],
      ['max_open_zones', 76, 4],
      ['max_active_zones', 80, 4],
      ['max_append_sectors', 84, 4],
      ['write_granularity', 88, 4],
      ['model', 92, 1],
      ['unused2', 93, 3],
    ],
  );
  assert.equal(blk.virtioBlkConfig.size, 96);
});

test('§5.2.6 struct virtio_blk_req: le32 type, le32 reserved, le64 sector, before the data', () => {
  assert.deepEqual(
    blk.virtioBlkRequestHeader.fields.map(({ name, offset, size }) => [name, offset, size]),
    [
      ['type', 0, 4],
      ['reserved', 4, 4],
      ['sector', 8, 8],
    ],
  );
  assert.equal(blk.virtioBlkRequestHeader.size, 16);
});

test('§5.2.6 struct virtio_blk_discard_write_zeroes: le64 sector, le32 num_sectors, le32 flags', () => {
  assert.deepEqual(
    blk.virtioBlkRange.fields.map(({ name, offset, size }) => [name, offset, size]),
    [
      ['sector', 0, 8],
      ['num_sectors', 8, 4],
      ['flags', 12, 4],
    ],
  );
  assert.equal(blk.virtioBlkRange.size, 16);
  assert.equal(blk.VIRTIO_BLK_RANGE_F_UNMAP, 1);
});

test('§5.2.3 feature bits', () => {
  const bits = {
    SIZE_MAX: 1n,
    SEG_MAX: 2n,
    RO: 5n,
    BLK_SIZE: 6n,
    FLUSH: 9n,
    MQ: 12n,
    DISCARD: 13n,
    WRITE_ZEROES: 14n,
  };
  const declared = new Map(Object.entries(blk));
  for (const [name, bit] of Object.entries(bits))
    assert.equal(declared.get(`VIRTIO_BLK_F_${name}`), 1n << bit, name);
});

test('§5.2.6 request types, statuses and sizes', () => {
  const types = { IN: 0, OUT: 1, FLUSH: 4, GET_ID: 8, DISCARD: 11, WRITE_ZEROES: 13 };
  const declared = new Map(Object.entries(blk));
  for (const [name, number] of Object.entries(types))
    assert.equal(declared.get(`VIRTIO_BLK_T_${name}`), number, name);
  assert.deepEqual([blk.VIRTIO_BLK_S_OK, blk.VIRTIO_BLK_S_IOERR, blk.VIRTIO_BLK_S_UNSUPP], [0, 1, 2]);
  assert.deepEqual([blk.SECTOR_SIZE, blk.VIRTIO_BLK_ID_BYTES], [512, 20]);
});
