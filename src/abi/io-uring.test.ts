// Layouts of io_uring against linux/io_uring.h.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ioUringCqe, ioUringParams, ioUringSqe } from './io-uring.ts';

test('struct io_uring_params, with its two structs of offsets', () => {
  assert.equal(ioUringParams.size, 120);
  assert.deepEqual(
    (['sq_entries', 'features', 'sq_off_head', 'sq_off_array', 'cq_off_head', 'cq_off_flags'] as const).map(
      (name) => ioUringParams.offsetOf(name),
    ),
    [0, 20, 40, 64, 80, 104],
  );
});

test('struct io_uring_sqe, the 64 bytes that all kernels have, and struct io_uring_cqe', () => {
  assert.equal(ioUringSqe.size, 64);
  assert.deepEqual(
    ioUringSqe.fields.map(({ name, offset }) => [name, offset]),
    [
      ['opcode', 0],
      ['flags', 1],
      ['ioprio', 2],
      ['fd', 4],
      ['off', 8],
      ['addr', 16],
      ['len', 24],
      ['op_flags', 28],
      ['user_data', 32],
      ['buf_index', 40],
      ['personality', 42],
      ['file_index', 44],
      ['addr3', 48],
      ['pad2', 56],
    ],
  );
  assert.deepEqual([ioUringCqe.size, ioUringCqe.offsetOf('res')], [16, 8]);
});
