// The ring of buffered requests, filled by a guest's writes to the memory of its graphics card, and a device model
// that empties it, does not, or lies about it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  HVM_IOREQSRV_BUFIOREQ_ATOMIC as ATOMIC,
  HVM_IOREQSRV_BUFIOREQ_LEGACY as LEGACY,
  XEN_DMOP_IO_RANGE_MEMORY as MEMORY,
} from '../../../abi/dm-op.ts';
import { IOREQ_BUFFER_SLOT_NUM } from '../../../abi/ioreq.ts';
import type { EventPort } from '../../../xen/ids.ts';
import { addDomain, bootTestMachine } from '../domains.test.helper.ts';
import { RawModel } from './raw-model.test.helper.ts';

const VGA = 0xa_0000;

function scene(buffering: number, kind: 'hvm' | 'pvh' = 'hvm') {
  const xen = bootTestMachine();
  const waits: number[] = [];
  const guest = addDomain(xen, 2, { kind }, undefined, (_words, index) => {
    waits.push(index);
    return false;
  });
  const model = RawModel.of(xen, guest);
  const { id } = model.serve(MEMORY, VGA, 0xf_ffff, buffering);
  const page = model.page(id, 0);
  const port = model.domain.ports.events.bindInterdomain(
    guest.id,
    model.info(id).info.bufioreq_port as EventPort,
  );
  const { mmio } = guest.ports;
  return { xen, guest, model, id, page, port, mmio, waits, words: new Uint32Array(xen.state.memory) };
}

test('a write is a slot of 8 bytes: type, size code and 20 bits of address, then data; 8 bytes take two', () => {
  const { mmio, words, page, waits } = scene(ATOMIC);
  mmio.write(VGA, 1, 0x1ff);
  mmio.write(VGA + 2, 2, 0x2222);
  mmio.write(0xb_fffc, 4, 0x4444_4444);
  mmio.writeWide(VGA + 8, 0x1111_1111_2222_2222n);
  const head = (size: number, address: number) => (1 | (size << 10) | ((address & 0xf_ffff) << 12)) >>> 0;
  assert.deepEqual(
    [...words.subarray(page, page + 12)],
    [0, 5, head(0, VGA), 0xff, head(1, VGA + 2), 0x2222, head(2, 0xb_fffc), 0x4444_4444].concat([
      head(3, VGA + 8),
      0x2222_2222,
      head(3, VGA + 8),
      0x1111_1111,
    ]),
  );
  assert.deepEqual(waits, [], 'nobody waited');
});

test('the device model hears of it; reads, other memory and guests without such a card are not buffered', () => {
  const { mmio, model, words, page, port, waits } = scene(ATOMIC);
  let heard = 0;
  while (model.domain.ports.events.poll());
  model.domain.ports.events.onEvent(port, () => heard++);
  mmio.write(VGA, 4, 1);
  model.domain.ports.events.poll();
  assert.equal(heard, 1);
  mmio.read(VGA, 4);
  mmio.write(0xc_0000, 4, 1);
  mmio.write(0xb_fffe, 4, 1);
  mmio.moveString(VGA, { isRead: false, isDown: false, size: 4, count: 2, memory: 0 });
  assert.equal(words[page + 1], 1);
  assert.equal(waits.length, 4);
  const pvh = scene(ATOMIC, 'pvh');
  pvh.mmio.write(VGA, 4, 1);
  assert.deepEqual([pvh.words[pvh.page + 1], pvh.waits.length], [0, 1]);
});

for (const [name, buffering] of [
  ['LEGACY', LEGACY],
  ['ATOMIC', ATOMIC],
] as const) {
  test(`${name}: a full ring sends writes the synchronous way, and a wide one is never split`, () => {
    const { mmio, words, page, waits } = scene(buffering);
    for (let i = 0; i < IOREQ_BUFFER_SLOT_NUM - 1; i++) mmio.write(VGA, 4, i);
    mmio.writeWide(VGA, 1n);
    assert.equal(waits.length, 1, 'one slot is not enough');
    mmio.write(VGA, 4, 510);
    assert.equal(waits.length, 1);
    const before = words.slice(page, page + 1024);
    mmio.write(VGA, 4, 511);
    assert.equal(waits.length, 2);
    assert.deepEqual(words.slice(page, page + 1024), before);
  });
}

test('ATOMIC takes whole rounds off both indices; LEGACY lets them run on', () => {
  for (const [buffering, expected] of [
    [ATOMIC, [3, 4]],
    [LEGACY, [2 * 511 + 3, 2 * 511 + 4]],
  ] as const) {
    const { mmio, words, page } = scene(buffering);
    words[page] = words[page + 1] = 2 * 511 + 3;
    mmio.write(VGA, 4, 0x77);
    assert.deepEqual([...words.subarray(page, page + 2)], expected);
    assert.equal(words[page + 2 + 2 * 3 + 1], 0x77);
  }
});

test('H27: whatever the device model writes into the indices, slots stay in the page and the guest goes on', () => {
  const hostile = [0, 1, 510, 511, 512, 2 ** 31, 2 ** 32 - 1, 2 ** 32 - 511];
  for (const read of hostile)
    for (const write of hostile) {
      const { xen, mmio, words, page, guest } = scene(ATOMIC);
      const [before, after] = [words[page - 1], words[page + 1024]];
      words[page] = read;
      words[page + 1] = write;
      mmio.write(VGA, 4, 0x1234_5678);
      mmio.writeWide(VGA, 0x1234_5678_9abc_def0n);
      assert.deepEqual([words[page - 1], words[page + 1024]], [before, after]);
      assert.equal(guest.record.shutdownCode, -1);
      assert.equal(xen.domain(1).shutdownCode, -1);
    }
});

test('a server that is switched off takes nothing, and goes on when it is on again', () => {
  const { mmio, model, words, page, id } = scene(ATOMIC);
  assert.equal(model.enable(id, 0), 0);
  mmio.write(VGA, 4, 1);
  assert.equal(words[page + 1], 0);
  assert.equal(model.enable(id), 0);
  mmio.write(VGA, 4, 1);
  assert.equal(words[page + 1], 1);
});
