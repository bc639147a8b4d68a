// Which bytes of a chain's buffers a device has reached, against a list of all bytes.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { grantAddressHigh, grantAddressLow } from '../abi/grant-address.ts';
import { GrantedBuffers } from './granted-buffers.ts';

interface Buffer {
  readonly length: number;
  readonly writable: boolean;
}

function listOf(buffers: readonly Buffer[]): GrantedBuffers {
  const list = new GrantedBuffers();
  for (const [index, { length, writable }] of buffers.entries())
    list.add(grantAddressLow(8 + index, 17), grantAddressHigh(8 + index), length, writable);
  return list;
}

/** Every byte of the buffers that the device may write, or that it may only read, in the order of the chain. */
function bytesOf(buffers: readonly Buffer[], writable: boolean): string[] {
  return buffers.flatMap((buffer, index) =>
    buffer.writable === writable ? Array.from({ length: buffer.length }, (_, at) => `${index}:${at}`) : [],
  );
}

function visited(visit: (piece: (index: number, from: number, length: number) => void) => void): string[] {
  const bytes: string[] = [];
  visit((index, from, length) => {
    assert.ok(length > 0);
    for (let at = from; at < from + length; at++) bytes.push(`${index}:${at}`);
  });
  return bytes;
}

const buffers = fc.array(fc.record({ length: fc.integer({ min: 1, max: 9 }), writable: fc.boolean() }), {
  maxLength: 6,
});

test('what was written is so much from the start and so much at the very end, and nothing twice', () => {
  fc.assert(
    fc.property(buffers, fc.nat(60), fc.nat(60), (each, start, end) => {
      const all = bytesOf(each, true);
      const written = Math.min(start, all.length);
      const tail = Math.max(written, all.length - end);
      const list = listOf(each);
      assert.equal(list.writableBytes, all.length);
      assert.deepEqual(
        visited((piece) => list.eachWritten(written, end, piece)),
        [...all.slice(0, written), ...all.slice(tail)],
      );
    }),
    { seed: 4, numRuns: 500 },
  );
});

test('what was read is so much from the start of what may only be read', () => {
  fc.assert(
    fc.property(buffers, fc.nat(60), (each, read) => {
      const list = listOf(each);
      assert.deepEqual(
        visited((piece) => list.eachRead(read, piece)),
        bytesOf(each, false).slice(0, read),
      );
    }),
    { seed: 5, numRuns: 500 },
  );
});

test('a list that is used again knows nothing of the chain before', () => {
  const list = listOf([{ length: 4, writable: true }]);
  list.clear();
  assert.deepEqual(
    visited((piece) => list.eachWritten(4, 4, piece)),
    [],
  );
});
