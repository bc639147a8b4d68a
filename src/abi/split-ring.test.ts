// The split virtqueue's layout against the listings of virtio 1.3 §2.7, and the rule of event indices.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as ring from './split-ring.ts';

test('§2.7.5 virtq_desc: le64 addr, le32 len, le16 flags, le16 next', () => {
  assert.equal(ring.virtqDesc.size, 16);
  assert.deepEqual(
    ring.virtqDesc.fields.map(({ name, offset, size }) => [name, offset, size]),
    [
      ['addr', 0, 8],
      ['len', 8, 4],
      ['flags', 12, 2],
      ['next', 14, 2],
    ],
  );
});

test('§2.7.8 virtq_used_elem: le32 id, le32 len', () => {
  assert.equal(ring.virtqUsedElem.size, 8);
  assert.deepEqual(
    ring.virtqUsedElem.fields.map(({ name, offset, size }) => [name, offset, size]),
    [
      ['id', 0, 4],
      ['len', 4, 4],
    ],
  );
});

test('§2.7.5 §2.7.6 §2.7.8 flags have the values of the listings', () => {
  assert.deepEqual([ring.VIRTQ_DESC_F_NEXT, ring.VIRTQ_DESC_F_WRITE, ring.VIRTQ_DESC_F_INDIRECT], [1, 2, 4]);
  assert.deepEqual([ring.VIRTQ_AVAIL_F_NO_INTERRUPT, ring.VIRTQ_USED_F_NO_NOTIFY], [1, 1]);
});

test('§2.7 sizes are 16n, 6 + 2n and 6 + 8n bytes, alignments 16, 2 and 4', () => {
  for (let size = 1; size <= 32768; size *= 2)
    assert.deepEqual(ring.splitRingSizes(size), {
      descriptor: 16 * size,
      driver: 6 + 2 * size,
      device: 6 + 8 * size,
    });
  assert.deepEqual([ring.VIRTQ_DESC_ALIGN, ring.VIRTQ_AVAIL_ALIGN, ring.VIRTQ_USED_ALIGN], [16, 2, 4]);
});

test('§2.7 F20 a queue size is a power of two from 1 to 32768', () => {
  const sizes = Array.from({ length: 70000 }, (_, size) => size).filter(ring.isSplitRingSize);
  assert.deepEqual(sizes, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768]);
  for (const size of [-1, -2, 0.5, 1.5, 2 ** 31, 2 ** 32, 2 ** 33, Number.NaN, Number.POSITIVE_INFINITY])
    assert.equal(ring.isSplitRingSize(size), false);
});

/** The rule as §2.7.7.2 has it, one entry at a time: was the entry with the index `event` among them? */
function walked(event: number, now: number, old: number): boolean {
  for (let index = old; index !== now; index = (index + 1) & 0xffff) if (index === event) return true;
  return false;
}

test('F27 an event is passed exactly if its entry was written, at every index and up to 5 entries (19)', () => {
  for (let old = 0; old < 0x10000; old++)
    for (let count = 0; count <= 5; count++) {
      const now = (old + count) & 0xffff;
      for (let distance = -3; distance <= 8; distance++) {
        const event = (old + distance) & 0xffff;
        if (ring.passedEvent(event, now, old) !== walked(event, now, old))
          assert.fail(`event ${event}, from ${old} to ${now}`);
      }
    }
});

test('F27 an event is passed exactly if its entry was written, for every event and wide steps', () => {
  for (const [old, now] of [
    [0, 1],
    [0xffff, 0],
    [0xffff, 1],
    [0xfffe, 0x7ffe],
    [0x8000, 0],
    [0, 0x8000],
    [1, 0],
    [5, 5],
  ])
    for (let event = 0; event < 0x10000; event++) {
      const inside = ((event - old) & 0xffff) < ((now - old) & 0xffff);
      if (ring.passedEvent(event, now, old) !== inside) assert.fail(`event ${event}, from ${old} to ${now}`);
    }
});
