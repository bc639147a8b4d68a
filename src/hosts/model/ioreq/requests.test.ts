// Requests as they travel, with a device model that knows only Xen's ABI: what it sees, and what it may do to them.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  XEN_DMOP_IO_RANGE_MEMORY as MEMORY,
  XEN_DMOP_IO_RANGE_PCI as PCI,
  XEN_DMOP_IO_RANGE_PORT as PORT,
} from '../../../abi/dm-op.ts';
import * as io from '../../../abi/ioreq.ts';
import { noTrace } from '../../../trace.ts';
import type { EventPort } from '../../../xen/ids.ts';
import type { DomainOptions } from '../domain-options.ts';
import { addDomain, bootTestMachine, type TestDomain } from '../domains.test.helper.ts';
import { SHUTDOWN_CRASH } from '../domains.ts';
import { EINVAL } from '../errno.ts';
import { RawModel, STATE_SHIFT, STATE_WORD } from './raw-model.test.helper.ts';

const BASE = 0xd000_0000;
const SIZE = 0x200;
const ALL_ONES = 0xffff_ffff;

/** What is under the device model's eyes while the guest waits. */
interface Seen {
  readonly addr: number;
  readonly data: number;
  readonly count: number;
  readonly size: number;
  readonly flags: number;
  readonly type: number;
}

/** A guest whose waits are turns of the device model: each does the next of `turns` to the request. */
function scene(options: Partial<DomainOptions> = {}) {
  const xen = bootTestMachine();
  const seen: Seen[] = [];
  const turns: ((at: number) => void)[] = [];
  const state = { page: 0 };
  const guest: TestDomain = addDomain(xen, 2, { kind: 'hvm', ...options }, noTrace, () => {
    const turn = turns.shift();
    turn?.(state.page);
    return turn !== undefined;
  });
  const model = RawModel.of(xen, guest);
  /** Notes the request of processor 0. */
  const look = (at: number) => {
    const request = io.ioreq.over(new Uint8Array(xen.state.memory)).at(at * 4);
    const { addr, data, count, size, type, state_dir } = request;
    seen.push({ addr, data, count, size, flags: state_dir & ~io.IOREQ_STATE_MASK, type });
  };
  const answer = (value: number) => (at: number) => {
    look(at);
    model.words[at + 2] = value;
    setState(io.STATE_IORESP_READY)(at);
  };
  const setState = (next: number) => (at: number) => {
    model.words[at + STATE_WORD] =
      (model.words[at + STATE_WORD] & ~(0x0f << STATE_SHIFT)) | (next << STATE_SHIFT);
  };
  const serve = (type: number, start: number, end: number) => {
    const served = model.serve(type, start, end);
    state.page = served.page;
    return served;
  };
  return { xen, guest, model, seen, turns, answer, setState, serve, mmio: guest.ports.mmio };
}

test('a load and a store are a request of COPY with address, size, count 1 and direction, answered in place', () => {
  const { mmio, turns, seen, answer, setState, serve } = scene();
  serve(MEMORY, BASE, BASE + SIZE - 1);
  turns.push(setState(io.STATE_IOREQ_INPROCESS), answer(0x1234_5678));
  assert.equal(mmio.read(BASE + 0x10, 4), 0x1234_5678);
  turns.push(answer(0));
  mmio.write(BASE + 0x20, 2, 0xdead_beef);
  assert.deepEqual(seen, [
    { addr: BASE + 0x10, data: 0, count: 1, size: 4, flags: io.IOREQ_READ, type: io.IOREQ_TYPE_COPY },
    { addr: BASE + 0x20, data: 0xbeef, count: 1, size: 2, flags: 0, type: io.IOREQ_TYPE_COPY },
  ]);
});

test('8 bytes travel whole, in both directions; sizes that are none never reach anyone', () => {
  const { mmio, model, turns, seen, answer, serve } = scene();
  const { page } = serve(MEMORY, BASE, BASE + SIZE - 1);
  turns.push((at) => {
    model.words[at + 3] = 0x0123_4567;
    answer(0x89ab_cdef)(at);
  });
  assert.equal(mmio.readWide(BASE), 0x0123_4567_89ab_cdefn);
  let high = 0;
  turns.push((at) => {
    high = model.words[at + 3];
    answer(0)(at);
  });
  mmio.writeWide(BASE + 8, 0x1111_2222_3333_4444n);
  assert.equal(high, 0x1111_2222);
  assert.equal(seen[1].size, 8);
  for (const size of [0, 3, 5, 6, 7, 16, -4]) mmio.write(BASE, size, 1);
  assert.equal(model.words[page + STATE_WORD] >>> STATE_SHIFT, 0);
});

test('a string instruction is requests of one page at most, with df, count and the address of its memory', () => {
  const { guest, mmio, turns, seen, answer, serve } = scene();
  serve(MEMORY, BASE, BASE + 0x1fff);
  const forward = { isRead: false, isDown: false, size: 4, count: 6, memory: 0x3000 };
  turns.push(answer(0), answer(0));
  mmio.moveString(BASE + 0xff0, forward);
  turns.push(answer(0), answer(0));
  mmio.moveString(BASE + 0x1004, { ...forward, isDown: true, isRead: true, count: 3, memory: 0x3008 });
  const ptr = io.IOREQ_DATA_IS_PTR;
  assert.deepEqual(
    seen.map(({ addr, data, count, flags }) => [addr - BASE, data, count, flags]),
    [
      [0xff0, 0x3000, 4, ptr],
      [0x1000, 0x3010, 2, ptr],
      [0x1004, 0x3008, 2, ptr | io.IOREQ_READ | io.IOREQ_DF],
      [0xffc, 0x3000, 1, ptr | io.IOREQ_READ | io.IOREQ_DF],
    ],
  );
  mmio.moveString(BASE + 0x8000, { ...forward, isRead: true });
  assert.deepEqual([...guest.ports.addressSpace.read(0x3000, 25)], [...new Array(24).fill(0xff), 0]);
});

test('ports are looked for among ranges of ports, and nobody there is all ones of the size asked for', () => {
  const { mmio, turns, seen, answer, serve } = scene();
  serve(PORT, 0x70, 0x71);
  turns.push(answer(0x5a));
  assert.equal(mmio.readPort(0x71, 1), 0x5a);
  assert.deepEqual(seen[0].type, io.IOREQ_TYPE_PIO);
  assert.equal(mmio.readPort(0x72, 1), 0xff);
  assert.equal(mmio.readPort(0x71, 2), 0xffff, 'it ends outside of the range');
  assert.equal(mmio.read(0x70, 4), ALL_ONES, 'an address is no port');
});

test('the registers of a PCI function go to whoever has that function, as PCI_CONFIG', () => {
  const { mmio, turns, seen, answer, serve } = scene();
  const bdf = (2 << 8) | (5 << 3) | 1;
  serve(PCI, bdf, bdf);
  mmio.writePort(0xcf8, 4, 0x8000_0000 | (bdf << 8) | 0x44);
  turns.push(answer(0xaabb));
  assert.equal(mmio.readPort(0xcfe, 2), 0xaabb);
  assert.deepEqual(
    [seen[0].addr, seen[0].type, seen[0].size],
    [bdf * 2 ** 32 + 0x46, io.IOREQ_TYPE_PCI_CONFIG, 2],
  );
  mmio.writePort(0xcf8, 4, 0x8000_0000 | ((bdf + 1) << 8));
  assert.equal(mmio.readPort(0xcfc, 4), ALL_ONES, 'another function');
  mmio.writePort(0xcf8, 2, 0);
  mmio.writePort(0xcf8, 4, (bdf << 8) | 0x44);
  assert.equal(mmio.readPort(0xcfc, 4), ALL_ONES, 'the bus is not addressed');
});

test('of several servers the newest that is on and has the whole range is asked', () => {
  const { mmio, model, turns, seen, answer, serve } = scene();
  const first = serve(MEMORY, BASE, BASE + 0xfff);
  const second = serve(MEMORY, BASE + 0x100, BASE + 0x1ff);
  turns.push(answer(2));
  assert.equal(mmio.read(BASE + 0x100, 4), 2);
  assert.equal(model.enable(second.id, 0), 0);
  assert.equal(mmio.read(BASE + 0x100, 4), ALL_ONES, 'the older one does not answer yet');
  assert.equal(model.words[first.page + STATE_WORD], 0, 'and its request was taken back');
  assert.equal(seen.length, 1);
});

const forbidden: [name: string, states: number[]][] = [
  ['from INPROCESS back to READY', [io.STATE_IOREQ_INPROCESS, io.STATE_IOREQ_READY]],
  ['to a state that does not exist', [4]],
  ['to the last number there is', [15]],
  ['over INPROCESS to one that does not exist', [io.STATE_IOREQ_INPROCESS, 9]],
];

for (const [name, states] of forbidden) {
  test(`H27 XSA-262: a request that the device model moves ${name} ends the guest, and nothing else`, () => {
    const { xen, guest, model, mmio, turns, setState, serve } = scene();
    const { page } = serve(MEMORY, BASE, BASE + SIZE - 1);
    turns.push(...states.map((each) => setState(each)));
    assert.equal(mmio.read(BASE, 4), ALL_ONES);
    assert.equal(guest.record.shutdownCode, SHUTDOWN_CRASH);
    assert.equal(guest.record.pauseCount, 1);
    assert.equal(model.domain.record.shutdownCode, -1);
    // Whatever its thread still does reaches nobody.
    const state = model.words[page + STATE_WORD];
    mmio.write(BASE, 4, 1);
    assert.equal(model.words[page + STATE_WORD], state);
    const neighbour = addDomain(xen, 5);
    assert.equal(neighbour.ports.mmio.read(BASE, 4), ALL_ONES);
  });
}

test('H27: a request that goes to NONE is one whose server has gone: all ones, and the guest lives', () => {
  const { guest, mmio, turns, setState, answer, serve } = scene();
  serve(MEMORY, BASE, BASE + SIZE - 1);
  turns.push(setState(io.STATE_IOREQ_NONE));
  assert.equal(mmio.read(BASE, 4), ALL_ONES);
  turns.push(answer(7));
  assert.equal(mmio.read(BASE, 4), 7);
  assert.equal(guest.record.shutdownCode, -1);
});

test('H27: flags and type that change while the guest waits mean nothing; it waits for the state', () => {
  const { mmio, model, turns, answer, serve } = scene();
  serve(MEMORY, BASE, BASE + SIZE - 1);
  turns.push(
    (at) => {
      model.words[at + STATE_WORD] ^= 0x40 << STATE_SHIFT;
    },
    (at) => {
      model.words[at + STATE_WORD] ^= 0xff << 24;
    },
    answer(9),
  );
  assert.equal(mmio.read(BASE, 4), 9);
});

for (const [name, spoil] of [
  ['a state that is not NONE', { word: STATE_WORD, value: io.STATE_IORESP_READY << STATE_SHIFT }],
  ['an event channel that is not its own', { word: 6, value: 0x999 }],
] as const) {
  test(`H27: ${name}, set before the guest asks, makes its loads all ones and its port accesses fatal`, () => {
    const { guest, mmio, model, serve } = scene();
    const { page, id } = serve(MEMORY, BASE, BASE + SIZE - 1);
    assert.equal(model.map(id, PORT, 0x70, 0x71), 0);
    model.words[page + spoil.word] = spoil.value;
    assert.equal(mmio.read(BASE, 4), ALL_ONES);
    assert.equal(guest.record.shutdownCode, -1);
    assert.equal(mmio.readPort(0x70, 1), 0xff);
    assert.equal(guest.record.shutdownCode, SHUTDOWN_CRASH);
  });
}

test('as in Xen, a server that is switched on before it has its page never hears of its guest', () => {
  const { mmio, model } = scene();
  const id = model.create();
  model.map(id, MEMORY, BASE, BASE + SIZE - 1);
  assert.equal(model.enable(id), 0);
  const page = model.page(id, 1);
  assert.equal(model.words[page + 6], 0);
  assert.equal(mmio.read(BASE, 4), ALL_ONES);
  assert.equal(model.words[page + STATE_WORD], 0);
});

test('a request that is given up while it is worked on is finished before the next one is sent', () => {
  const { guest, mmio, model, turns, answer, setState, serve } = scene();
  const { page } = serve(MEMORY, BASE, BASE + SIZE - 1);
  turns.push(setState(io.STATE_IOREQ_INPROCESS));
  assert.equal(mmio.read(BASE, 4), ALL_ONES);
  assert.equal(mmio.read(BASE + 4, 4), ALL_ONES, 'it is still worked on');
  model.words[page + 2] = 0x5555;
  setState(io.STATE_IORESP_READY)(page);
  turns.push(answer(0x77));
  assert.equal(mmio.read(BASE + 8, 4), 0x77);
  assert.equal(guest.record.shutdownCode, -1);
});

test('the server is destroyed while the guest waits: all ones at once, and the page is not touched any more', () => {
  const { xen, mmio, model, turns, serve } = scene();
  const { id, page } = serve(MEMORY, BASE, BASE + SIZE - 1);
  const { frames } = xen.free;
  turns.push(() => {
    assert.equal(model.destroy(id), 0);
    // Still mapped by the device model, which may write what it likes there.
    model.words[page + STATE_WORD] = 9 << STATE_SHIFT;
  });
  assert.equal(mmio.read(BASE, 4), ALL_ONES);
  assert.equal(model.guest.record.shutdownCode, -1);
  assert.equal(xen.free.frames, frames, 'the frame is not free while it is mapped');
  assert.equal(model.unmapPage(id, 1), 0);
  assert.equal(xen.free.frames, frames + 1);
});

test('each processor has a request and an event channel of its own', () => {
  const xen = bootTestMachine();
  const guest = addDomain(xen, 2, { vcpus: 3 });
  const model = RawModel.of(xen, guest);
  const { page } = model.serve(MEMORY, BASE, BASE + SIZE - 1);
  const ports = [0, 1, 2].map((vcpu) => model.bind(page, vcpu));
  assert.equal(new Set(ports).size, 3);
  const heard: number[] = [];
  while (model.domain.ports.events.poll());
  ports.forEach((port, vcpu) => {
    model.domain.ports.events.onEvent(port, () => heard.push(vcpu));
  });
  const second = xen.ports(guest.id, () => false, noTrace, 1).mmio;
  assert.equal(second.read(BASE, 4), ALL_ONES);
  model.domain.ports.events.poll();
  assert.deepEqual(heard, [1]);
});

test('a guest cannot close or use the channels by which its device models are told', () => {
  const { guest, model, mmio, turns, answer, serve } = scene();
  const { page } = serve(MEMORY, BASE, BASE + SIZE - 1);
  const port = model.words[page + 6] as EventPort;
  assert.equal(guest.ports.events.close(port), EINVAL);
  assert.equal(guest.ports.events.send(port), EINVAL);
  turns.push(answer(5));
  assert.equal(mmio.read(BASE, 4), 5);
});
