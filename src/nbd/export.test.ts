import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryDisk, type MemoryDiskOptions } from '../../test/support/memory-disk.ts';
import {
  NBD_FLAG_CAN_MULTI_CONN,
  NBD_FLAG_HAS_FLAGS,
  NBD_FLAG_READ_ONLY,
  NBD_FLAG_SEND_FLUSH,
  NBD_FLAG_SEND_FUA,
  NBD_FLAG_SEND_TRIM,
  NBD_FLAG_SEND_WRITE_ZEROES,
} from '../abi/nbd.ts';
import { serveExports } from './export.ts';

const always = NBD_FLAG_HAS_FLAGS | NBD_FLAG_CAN_MULTI_CONN;
const none = { canFlush: false, canDiscard: false, canWriteZeroes: false };

for (const [what, options, flags] of [
  ['nothing', none, always],
  ['flush', { ...none, canFlush: true }, always | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA],
  ['discard', { ...none, canDiscard: true }, always | NBD_FLAG_SEND_TRIM],
  ['zeroes', { ...none, canWriteZeroes: true }, always | NBD_FLAG_SEND_WRITE_ZEROES],
  [
    'all, read-only',
    { readOnly: true },
    always | NBD_FLAG_READ_ONLY | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA,
  ],
] as const satisfies [string, MemoryDiskOptions, number][])
  test(`the transmission flags say what the disk can do: ${what}`, () => {
    assert.equal(serveExports([{ name: 'a', disk: new MemoryDisk(512, options) }]).find('a')?.flags, flags);
  });

test('exports of one disk share its lock; the empty name is the first export', () => {
  const disk = new MemoryDisk(512);
  const exports = serveExports([
    { name: 'a', disk },
    { name: 'b', description: 'again', disk },
    { name: 'c', disk: new MemoryDisk(512) },
  ]);
  const [a, b, c] = exports;
  assert.equal(a.disk, b.disk);
  assert.notEqual(a.disk, c.disk);
  assert.equal(exports.find(''), a);
  assert.equal(exports.find('b'), b);
  assert.equal(exports.find('d'), undefined);
  assert.equal(exports.remove('a'), a);
  assert.equal(exports.remove('a'), undefined);
  assert.equal(exports.find(''), b);
});

for (const [names, message] of [
  [[], /at least one export, got none/],
  [['a', 'a'], /"a": the name is taken/],
  [['a', ''], /the empty name always means the first export/],
  [['a\0'], /"a\\u0000" has a NUL character/],
  [['ü'.repeat(2049)], /a name of 4098 bytes; expected at most 4096/],
] as const)
  test(`exports named ${JSON.stringify(names).slice(0, 20)} are refused`, () => {
    const disk = new MemoryDisk(512);
    assert.throws(() => serveExports(names.map((name) => ({ name, disk }))), { name: 'RangeError', message });
  });
