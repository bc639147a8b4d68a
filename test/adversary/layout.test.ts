// F18 The framing of a request is the driver's choice (virtio 1.3 §2.7.4.1): header, data and status cut into
// descriptors anywhere, in the ring or in a table, in one page or many, give the same result.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { VIRTQ_DESC_F_INDIRECT } from '../../src/abi/split-ring.ts';
import * as blk from '../../src/abi/virtio-blk.ts';
import { type RawBuffer, fillTable, offsetBy, type SharedPages } from '../support/raw-driver.test.helper.ts';
import { DISK_SIZE, diskBytes, Scene } from '../support/scene.test.helper.ts';

const PAGES = 4;
/** What the device must leave alone holds this. */
const PAINT = 0xee;
const QUEUE = 16;

/** A request, and where its two byte streams are cut: numbers from 0 up to 1. */
const requests = fc.record({
  write: fc.boolean(),
  sector: fc.integer({ min: 0, max: DISK_SIZE / 512 - 4 }),
  sectors: fc.integer({ min: 1, max: 4 }),
  readableCuts: fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 6 }),
  writableCuts: fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 6 }),
  /** Bytes left free between two pieces. */
  gaps: fc.array(fc.integer({ min: 0, max: 300 }), { minLength: 16, maxLength: 16 }),
  start: fc.integer({ min: 0, max: 4095 }),
  indirect: fc.boolean(),
});

/** Lengths of the pieces, empty ones too, into which `total` bytes fall at `cuts`. */
function pieces(total: number, cuts: readonly number[]): number[] {
  const places = [...cuts.map((cut) => Math.floor(cut * (total + 1))), total].sort((a, b) => a - b);
  return places.map((place, i) => Math.min(place, total) - Math.min(places[i - 1] ?? 0, total));
}

/** A piece of a stream, and where it lies in its area. */
type Piece = RawBuffer & { readonly from: number };

/** Where pieces of these lengths lie in `area`, with gaps between them. */
function place(
  area: SharedPages,
  lengths: readonly number[],
  gaps: readonly number[],
  start: number,
): Piece[] {
  let at = start;
  return lengths.map((length, i) => {
    const from = at;
    at += length + gaps[i];
    return { at: offsetBy(area, from), length, from };
  });
}

function scatter(area: SharedPages, into: readonly Piece[], stream: Uint8Array): void {
  let done = 0;
  for (const { from, length } of into) {
    area.bytes.set(stream.subarray(done, done + length), from);
    done += length;
  }
}

/** The stream in the pieces, which are painted over on the way. */
function gather(area: SharedPages, pieces: readonly Piece[]): Uint8Array {
  const parts = pieces.map(({ from, length }) => area.bytes.slice(from, from + length));
  for (const { from, length } of pieces) area.bytes.fill(PAINT, from, from + length);
  return new Uint8Array(Buffer.concat(parts));
}

/** What the device reads for a request. */
function streamOf(type: number, sector: number, data: Uint8Array): Uint8Array {
  const stream = new Uint8Array(16 + data.length);
  stream.set(blk.virtioBlkRequestHeader.make({ type, sector }).bytes);
  stream.set(data, 16);
  return stream;
}

test('F18 any layout of header, data and status over descriptors is served alike', async () => {
  const scene = new Scene();
  const { driver } = scene;
  const queue = driver.start(QUEUE);
  const [input, output, table] = [driver.share(PAGES), driver.share(PAGES), driver.share(1)];
  const expected = diskBytes(DISK_SIZE, 0x11);
  let salt = 0;

  const serve = (chain: readonly RawBuffer[], indirect: boolean, room: number) => {
    const head = salt % (QUEUE - chain.length + 1);
    if (indirect) {
      fillTable(table, salt, chain);
      const at = offsetBy(table, salt);
      queue.table.write(head, at.low, at.high, chain.length * 16, VIRTQ_DESC_F_INDIRECT, 0);
    } else driver.chain(queue, head, chain);
    const before = queue.used.index;
    driver.submit(queue, head);
    assert.equal(queue.used.index, (before + 1) & 0xffff);
    assert.deepEqual([queue.used.id(before), queue.used.len(before)], [head, room]);
  };

  fc.assert(
    fc.property(requests, ({ write, sector, sectors, readableCuts, writableCuts, gaps, start, indirect }) => {
      const length = sectors * 512;
      const data = write ? diskBytes(length, ++salt) : new Uint8Array(0);
      const stream = streamOf(write ? blk.VIRTIO_BLK_T_OUT : blk.VIRTIO_BLK_T_IN, sector, data);
      const room = (write ? 0 : length) + 1;
      const readable = place(input, pieces(stream.length, readableCuts), gaps, start);
      const writable = place(output, pieces(room, writableCuts), gaps.slice(7), start);
      scatter(input, readable, stream);
      output.bytes.fill(PAINT);
      serve([...readable, ...writable.map((piece) => ({ ...piece, writable: true }))], indirect, room);
      const answer = gather(output, writable);
      assert.ok(
        output.bytes.every((byte) => byte === PAINT),
        'bytes between the pieces are untouched',
      );
      assert.equal(answer[room - 1], blk.VIRTIO_BLK_S_OK);
      expected.set(data, sector * 512);
      if (!write) assert.deepEqual(answer.slice(0, -1), expected.slice(sector * 512, sector * 512 + length));
      assert.deepEqual(scene.bytes, expected);
    }),
    { seed: 18, numRuns: 300 },
  );
  await scene.finish();
});
