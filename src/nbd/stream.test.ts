// Whole connections as streams of bytes: however they are cut, and whatever they say.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MemoryDisk } from '../../test/support/memory-disk.ts';
import { connected, infoData, optionBytes, requestBytes } from '../../test/support/nbd.ts';
import {
  NBD_CMD_DISC,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_OPT_GO,
  NBD_OPT_LIST,
  NBD_OPT_STRUCTURED_REPLY,
} from '../abi/nbd.ts';
import { ProtocolViolation } from '../errors.ts';

const CAPACITY = 32_768;

/** Everything a client says from its flags to its goodbye, in requests that touch different bytes. */
const conversation = Buffer.concat([
  Buffer.from('00000003', 'hex'),
  optionBytes(NBD_OPT_LIST),
  optionBytes(NBD_OPT_STRUCTURED_REPLY),
  optionBytes(NBD_OPT_GO, infoData('disk', [0, 1, 2, 3])),
  requestBytes(NBD_CMD_WRITE, { offset: 100, data: new Uint8Array(3000).fill(1), cookie: 1n }),
  requestBytes(NBD_CMD_WRITE, { offset: 3100, data: new Uint8Array(300).fill(2), cookie: 2n }),
  requestBytes(NBD_CMD_READ, { offset: 20_000, length: 9000, cookie: 3n }),
  requestBytes(NBD_CMD_WRITE, { offset: CAPACITY, data: new Uint8Array(40), cookie: 4n }),
  requestBytes(NBD_CMD_WRITE_ZEROES, { offset: 3400, length: 1000, cookie: 5n }),
  requestBytes(NBD_CMD_TRIM, { offset: 8192, length: 1000, cookie: 6n }),
  requestBytes(NBD_CMD_FLUSH, { cookie: 7n }),
  requestBytes(NBD_CMD_DISC),
]);

/** Sends `pieces`, one a turn, and ends; resolves when the connection is over. */
async function converse(pieces: readonly Uint8Array[]): Promise<{
  reason: Error | undefined;
  disk: MemoryDisk;
  answers: Buffer;
}> {
  const disk = new MemoryDisk(CAPACITY, { maxTransfer: 4096, pool: 8192 });
  for (let i = 0; i < CAPACITY; i++) disk.bytes[i] = i % 251;
  const { client, over } = connected([{ name: 'disk', disk }]);
  const answers: Uint8Array[] = [];
  client.stream.on('data', (chunk: Uint8Array) => answers.push(chunk));
  for (const piece of pieces) {
    client.stream.write(piece);
    await new Promise((resolve) => setImmediate(resolve));
  }
  client.stream.end();
  const reason = await over;
  return { reason, disk, answers: Buffer.concat(answers) };
}

function cutAt(bytes: Uint8Array, cuts: readonly number[]): Uint8Array[] {
  const places = [0, ...cuts.filter((cut) => cut < bytes.length).sort((a, b) => a - b), bytes.length];
  return places.slice(1).map((end, index) => bytes.subarray(places[index], end));
}

/** Replies come in any order, so that only what they are made of can be compared. */
function sorted(bytes: Buffer): string {
  return Buffer.from(bytes).sort().toString('hex');
}

test('property: the outcome of a connection does not depend on how its stream is cut', async () => {
  const whole = await converse([conversation]);
  assert.equal(whole.reason, undefined);
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat({ max: conversation.length }), { maxLength: 12 }), async (cuts) => {
      const { reason, disk, answers } = await converse(cutAt(conversation, cuts));
      assert.equal(reason, undefined);
      assert.deepEqual(Buffer.from(disk.bytes), Buffer.from(whole.disk.bytes));
      assert.equal(sorted(answers), sorted(whole.answers));
      assert.equal(disk.lent, 0);
    }),
    { seed: 7, numRuns: 60 },
  );
});

test('a stream that arrives one byte at a time has the same outcome', async () => {
  const whole = await converse([conversation]);
  const { reason, answers } = await converse(cutAt(conversation, [...conversation.keys()].slice(1)));
  assert.equal(reason, undefined);
  assert.equal(sorted(answers), sorted(whole.answers));
});

test('property: a stream that ends anywhere ends the connection, with all buffers returned', async () => {
  await fc.assert(
    fc.asyncProperty(fc.nat({ max: conversation.length - 1 }), async (length) => {
      const { reason, disk } = await converse([conversation.subarray(0, length)]);
      assert.ok(reason === undefined || reason instanceof ProtocolViolation, String(reason));
      assert.equal(disk.lent, 0);
    }),
    { seed: 8, numRuns: 100 },
  );
});

test('property: any bytes end in replies or a closed connection, never in an exception', async () => {
  const damage = fc.array(fc.tuple(fc.nat({ max: conversation.length - 1 }), fc.nat({ max: 255 })), {
    maxLength: 6,
  });
  const damaged = damage.map((changes) => {
    const bytes = Uint8Array.from(conversation);
    for (const [at, value] of changes) bytes[at] = value;
    return bytes;
  });
  const nonsense = fc
    .uint8Array({ maxLength: 300 })
    .map((bytes) => Buffer.concat([Buffer.from('00000003', 'hex'), bytes]));
  await fc.assert(
    fc.asyncProperty(fc.oneof(damaged, nonsense), async (bytes) => {
      const { reason, disk } = await converse([bytes]);
      assert.ok(reason === undefined || reason instanceof ProtocolViolation, String(reason));
      assert.equal(disk.lent, 0);
    }),
    { seed: 9, numRuns: 400 },
  );
});
