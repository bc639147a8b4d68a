import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ProtocolViolation } from '../errors.ts';
import { StreamReader } from './stream-reader.ts';

/** A source that counts how often it is told to wait. */
class Source {
  paused = false;
  pauses = 0;
  pause(): void {
    this.paused = true;
    this.pauses++;
  }
  resume(): void {
    this.paused = false;
  }
}

const bytes = (length: number, from = 0): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => (from + i) % 251);

test('property: what is read does not depend on how the stream is cut', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.nat({ max: 700 }), { maxLength: 20 }),
      fc.array(fc.integer({ min: 1, max: 900 }), { maxLength: 30 }),
      fc.boolean(),
      async (reads, cuts, shared) => {
        const total = reads.reduce((sum, each) => sum + each, 0);
        const stream = bytes(total);
        const reader = new StreamReader(new Source());
        const all = new Uint8Array(shared ? new SharedArrayBuffer(total) : new ArrayBuffer(total));
        const reading = (async () => {
          let at = 0;
          for (const length of reads) {
            assert.equal(await reader.fill(all.subarray(at, at + length)), true);
            at += length;
          }
          return reader.fill(new Uint8Array(1));
        })();
        for (let at = 0, turn = 0; at < total; turn++) {
          const size = cuts.length > 0 ? cuts[turn % cuts.length] : total;
          reader.push(stream.subarray(at, at + size));
          at += size;
          if (turn % 3 === 0) await Promise.resolve();
        }
        reader.end();
        assert.equal(await reading, false);
        assert.deepEqual(Buffer.from(all), Buffer.from(stream));
      },
    ),
    { seed: 1, numRuns: 200 },
  );
});

test('bytes arrive whole in shared memory wherever source and target start, in pieces of any length', async () => {
  for (const length of [1, 7, 8, 65_535, 65_536, 65_537])
    for (let skew = 0; skew < 9; skew++) {
      const reader = new StreamReader(new Source());
      const source = bytes(length + 16);
      const target = new Uint8Array(new SharedArrayBuffer(length + 16));
      reader.push(source.subarray(3, 3 + length));
      await reader.fill(target.subarray(skew, skew + length));
      const expected = Buffer.alloc(length + 16);
      expected.set(source.subarray(3, 3 + length), skew);
      assert.deepEqual(Buffer.from(target), expected);
    }
});

test('the source waits while a chunk is unread and goes on when one is wanted', async () => {
  const source = new Source();
  const reader = new StreamReader(source);
  reader.push(bytes(10));
  assert.equal(source.paused, false);
  reader.push(bytes(10));
  assert.equal(source.paused, true);
  await reader.fill(new Uint8Array(20));
  assert.equal(source.paused, true);
  const more = reader.fill(new Uint8Array(5));
  assert.equal(source.paused, false);
  assert.equal(reader.waiting, true);
  reader.push(bytes(5));
  assert.equal(await more, true);
  assert.equal(source.pauses, 1);
});

test('an end between reads is no error, an end within one is', async () => {
  const reader = new StreamReader(new Source());
  reader.push(bytes(12));
  reader.end();
  assert.equal(await reader.fill(new Uint8Array(10)), true);
  await assert.rejects(reader.fill(new Uint8Array(28)), ProtocolViolation);
  assert.equal(await reader.fill(new Uint8Array(28)), false);
});

test('an end while a read waits settles it', async () => {
  const clean = new StreamReader(new Source());
  const none = clean.fill(new Uint8Array(28));
  clean.end();
  assert.equal(await none, false);
  const broken = new StreamReader(new Source());
  const some = broken.skip(28);
  broken.push(bytes(27));
  broken.end();
  await assert.rejects(some, /after 27 of 28 bytes/);
});

test('after discard() nothing is kept and the source runs freely', async () => {
  const source = new Source();
  const reader = new StreamReader(source);
  reader.push(bytes(10));
  reader.push(bytes(10));
  reader.discard();
  assert.equal(source.paused, false);
  for (let i = 0; i < 10; i++) reader.push(bytes(10));
  assert.equal(source.pauses, 1);
  assert.equal(await reader.fill(new Uint8Array(1)), false);
  assert.equal(reader.received, 120);
});
