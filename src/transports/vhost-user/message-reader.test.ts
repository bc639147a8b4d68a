// Messages are the same however the stream was cut into reads, and what is no message ends the connection.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { vhostUserHeader } from '../../abi/vhost-user.ts';
import { ProtocolViolation } from '../../errors.ts';
import { MAX_PAYLOAD, MessageReader, type VhostMessage } from './message-reader.ts';

function bytesOf(request: number, flags: number, payload: Uint8Array, size = payload.length): Uint8Array {
  const { bytes } = vhostUserHeader.make({ request, flags, size });
  return Uint8Array.of(...bytes, ...payload);
}

/** Reads a stream in pieces of at most the given lengths; descriptors come with the first byte of a message. */
function readAll(
  stream: Uint8Array,
  cuts: readonly number[],
  fdsAt: ReadonlyMap<number, number[]>,
): VhostMessage[] {
  const reader = new MessageReader();
  const messages: VhostMessage[] = [];
  for (let at = 0, turn = 0; at < stream.length; turn++) {
    const length = Math.min(reader.room.length, cuts[turn % cuts.length], stream.length - at);
    reader.room.set(stream.subarray(at, at + length));
    const message = reader.advance(length, fdsAt.get(at) ?? []);
    at += length;
    if (message !== undefined) messages.push(message);
  }
  assert.ok(reader.isBetween);
  return messages;
}

const message = fc.record(
  {
    request: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    flags: fc.constantFrom(1, 9, 5),
    payload: fc.uint8Array({ maxLength: 80 }),
    fds: fc.array(fc.integer({ min: 3, max: 1000 }), { maxLength: 8 }),
  },
  { noNullPrototype: true },
);

test('T1: any cut of a stream into reads gives the same messages with the same descriptors', () => {
  fc.assert(
    fc.property(
      fc.array(message, { minLength: 1, maxLength: 6 }),
      fc.array(fc.integer({ min: 1, max: 100 }), { minLength: 1, maxLength: 10 }),
      (sent, cuts) => {
        const parts = sent.map(({ request, flags, payload }) => bytesOf(request, flags, payload));
        const fdsAt = new Map<number, number[]>();
        let at = 0;
        for (const [i, part] of parts.entries()) {
          fdsAt.set(at, sent[i].fds);
          at += part.length;
        }
        const stream = Uint8Array.from(parts.flatMap((part) => [...part]));
        assert.deepEqual(readAll(stream, cuts, fdsAt), sent);
      },
    ),
    { seed: 51, numRuns: 300 },
  );
});

test('T1: a stream that ends within a message leaves its descriptors to whoever reads', () => {
  const reader = new MessageReader();
  reader.room.set(bytesOf(5, 1, new Uint8Array(0), 8));
  assert.equal(reader.advance(12, [7, 8]), undefined);
  assert.equal(reader.isBetween, false);
  assert.deepEqual(reader.pendingFds, [7, 8]);
});

test('T2: a longer payload than any message has, another version, and too many descriptors are refused', () => {
  for (const [flags, size, fds] of [
    [1, MAX_PAYLOAD + 1, 0],
    [1, 2 ** 32 - 1, 0],
    [0, 0, 0],
    [2, 0, 0],
    [3, 0, 0],
    [1, 0, 9],
  ]) {
    const reader = new MessageReader();
    reader.room.set(bytesOf(1, flags, new Uint8Array(0), size));
    const given = Array.from({ length: fds }, (_, i) => i + 3);
    assert.throws(() => reader.advance(12, given), ProtocolViolation);
    assert.deepEqual(reader.pendingFds, given);
  }
});

test('T2: the longest payload is read whole', () => {
  const payload = Uint8Array.from({ length: MAX_PAYLOAD }, (_, i) => i);
  const [only] = readAll(bytesOf(5, 1, payload), [1000], new Map());
  assert.deepEqual(only.payload, payload);
});
