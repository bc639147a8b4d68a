import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MemoryDisk } from '../../test/support/memory-disk.ts';
import { settled } from '../../test/support/settled.ts';
import { ByteDisk, dataOf } from './byte-disk.ts';

async function write(disk: ByteDisk, offset: number, data: Uint8Array): Promise<void> {
  for (const piece of disk.pieces(offset, data.length)) {
    const buffer = await disk.buffer(piece);
    dataOf(piece, buffer).set(data.subarray(piece.offset - offset, piece.offset - offset + piece.length));
    await disk.write(piece, buffer);
    buffer.release();
  }
}

async function read(disk: ByteDisk, offset: number, length: number): Promise<Uint8Array> {
  const data = new Uint8Array(length);
  for (const piece of disk.pieces(offset, length)) {
    const buffer = await disk.buffer(piece);
    await disk.read(piece, buffer);
    data.set(dataOf(piece, buffer), piece.offset - offset);
    buffer.release();
  }
  return data;
}

test('property: pieces tile the range; each is whole blocks within the limit or a part of one block', () => {
  fc.assert(
    fc.property(
      fc.nat({ max: 20_000 }),
      fc.nat({ max: 20_000 }),
      fc.nat({ max: 6000 }),
      (offset, length, more) => {
        const disk = new ByteDisk(new MemoryDisk(1 << 16, { maxTransfer: 4096 + more }));
        let at = offset;
        for (const piece of disk.pieces(offset, length)) {
          assert.equal(piece.offset, at);
          assert.ok(piece.length > 0 && piece.length <= 4096 + more);
          const whole = piece.offset % 512 === 0 && piece.length % 512 === 0;
          assert.ok(whole || Math.floor(at / 512) === Math.floor((at + piece.length - 1) / 512));
          at += piece.length;
        }
        assert.equal(at, offset + length);
      },
    ),
    { seed: 3 },
  );
});

test('whole blocks go to the disk as they are; a part of a block is read first', async () => {
  const disk = new MemoryDisk(1 << 16, { maxTransfer: 4096 });
  await write(new ByteDisk(disk), 512, new Uint8Array(8192));
  assert.deepEqual(disk.log, ['write 512+4096', 'write 4608+4096']);
  disk.log.length = 0;
  await write(new ByteDisk(disk), 500, new Uint8Array(1040));
  assert.deepEqual(
    disk.log,
    ['read 0+512', 'write 0+512', 'write 512+1024', 'read 1536+512', 'write 1536+512'].slice(0, 5),
  );
});

test('property: any ranges behave as on an array, one request after another', async () => {
  const step = fc.record({
    what: fc.constantFrom('write', 'zero', 'read'),
    offset: fc.nat({ max: 8191 }),
    length: fc.nat({ max: 3000 }),
    value: fc.integer({ min: 1, max: 255 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 20 }), async (steps) => {
      const memory = new MemoryDisk(8192, { maxTransfer: 4096 });
      const disk = new ByteDisk(memory);
      const model = new Uint8Array(8192);
      for (const { what, offset, length: wanted, value } of steps) {
        const length = Math.min(wanted, 8192 - offset);
        const data = new Uint8Array(length).fill(what === 'zero' ? 0 : value);
        if (what === 'write') await write(disk, offset, data);
        if (what === 'zero') await disk.writeZeroes(offset, length, false);
        if (what === 'read')
          assert.deepEqual(await read(disk, offset, length), model.slice(offset, offset + length));
        else model.set(data, offset);
      }
      assert.deepEqual(Buffer.from(memory.bytes), Buffer.from(model));
      assert.equal(memory.lent, 0);
    }),
    { seed: 4, numRuns: 100 },
  );
});

test('property: requests side by side that share blocks but no bytes all take effect', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 1, max: 700 }), { minLength: 2, maxLength: 20 }),
      fc.scheduler(),
      async (lengths, scheduler) => {
        const memory = new MemoryDisk(16_384, { maxTransfer: 4096 });
        memory.before = () => scheduler.schedule(Promise.resolve());
        const disk = new ByteDisk(memory);
        const model = new Uint8Array(16_384);
        let at = 0;
        const work = lengths.map((length, index) => {
          const offset = at;
          at += length;
          model.fill(index + 1, offset, at);
          return write(disk, offset, new Uint8Array(length).fill(index + 1));
        });
        await scheduler.waitFor(Promise.all(work));
        assert.deepEqual(Buffer.from(memory.bytes), Buffer.from(model));
      },
    ),
    { seed: 5, numRuns: 60 },
  );
});

test('a change of a part of a block waits for writes of that block, and needs no buffer while it holds it', async () => {
  const memory = new MemoryDisk(4096, { maxTransfer: 4096, pool: 1024 });
  const disk = new ByteDisk(memory);
  let letGo = (): void => undefined;
  memory.before = (request) =>
    request === 'write 0+512'
      ? new Promise<void>((resolve) => {
          letGo = resolve;
        })
      : undefined;
  const whole = write(disk, 0, new Uint8Array(512).fill(1));
  const part = write(disk, 10, new Uint8Array(20).fill(2));
  await settled();
  assert.deepEqual(memory.log, []);
  assert.equal(memory.lent, 1024);
  memory.before = () => undefined;
  letGo();
  await Promise.all([whole, part]);
  assert.deepEqual(memory.log, ['write 0+512', 'read 0+512', 'write 0+512']);
  assert.deepEqual([...memory.bytes.subarray(8, 12)], [1, 1, 2, 2]);
});

test('a discard keeps the blocks that are not wholly inside; zeroes may unmap whole blocks only', async () => {
  const memory = new MemoryDisk(4096);
  const disk = new ByteDisk(memory);
  await disk.discard(1, 1535);
  await disk.discard(513, 510);
  await disk.writeZeroes(100, 1000, true);
  assert.deepEqual(memory.log, [
    'discard 512+1024',
    'read 0+512',
    'write 0+512',
    'zero, may unmap 512+512',
    'read 1024+512',
    'write 1024+512',
  ]);
  assert.equal(memory.lent, 0);
});
