// A guest's loads and stores in windows of registers, and the domains that answer them.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EVTCHN_2L_PORTS } from '../../../abi/event-channel.ts';
import {
  MMIO_INTERRUPT_ACK,
  MMIO_INTERRUPT_STATUS,
  MMIO_QUEUE_NOTIFY,
  MMIO_STATUS,
} from '../../../abi/virtio-mmio.ts';
import { noTrace } from '../../../trace.ts';
import type { MmioServer } from '../../../xen/backend-host.ts';
import type { MmioHandler } from '../../../xen/mmio.ts';
import type { EventPort } from '../../../xen/ids.ts';
import { addDomain, bootTestMachine, type TestDomain } from '../domains.test.helper.ts';
import { ENOENT } from '../errno.ts';
import { MAX_WINDOWS } from './windows.ts';
import type { Xen } from '../xen.ts';

const BASE = 0x0200_0000;
const SIZE = 0x200;
const ALL_ONES = 0xffff_ffff;

/** What a server was asked, and registers that answer with their offset and how often they were read. */
class Registers implements MmioHandler {
  readonly asked: string[] = [];

  read(offset: number, size: number): number {
    this.asked.push(`r${size} ${offset}`);
    return (offset << 16) | this.asked.length;
  }

  write(offset: number, size: number, value: number): void {
    this.asked.push(`w${size} ${offset} ${value}`);
  }
}

/** A guest that lets the given domains work while it waits for an answer. */
function addGuest(xen: Xen, id: number, servers: readonly TestDomain[]): TestDomain {
  const guest = addDomain(xen, id, {}, noTrace, (words, index, value) => {
    while (Atomics.load(words, index) === value)
      if (!servers.some((server) => server.ports.events.poll())) return false;
    return true;
  });
  for (const server of servers) xen.nameDeviceModel(id, server.id);
  return guest;
}

function serve(server: TestDomain, guest: TestDomain, base: number, registers: MmioHandler): MmioServer {
  return server.ports.serveMmio(guest.id, base, SIZE, registers, () => undefined);
}

function machine() {
  const xen = bootTestMachine();
  const server = addDomain(xen, 1, { maxEventChannels: EVTCHN_2L_PORTS - 1 });
  /** The domains that run while the guest waits. */
  const awake = [server];
  const guest = addGuest(xen, 2, awake);
  const registers = new Registers();
  const window = serve(server, guest, BASE, registers);
  return { xen, server, awake, guest, registers, window, mmio: guest.ports.mmio };
}

test('a load and a store reach the server with offset, size and value, and the load has the answer', () => {
  const { mmio, registers } = machine();
  assert.equal(mmio.read(BASE + 0x100, 4), (0x100 << 16) | 1);
  mmio.write(BASE + SIZE - 1, 1, 0x7f);
  mmio.write(BASE + MMIO_STATUS, 4, ALL_ONES);
  assert.equal(mmio.read(BASE + 2, 2), 4, 'no more bytes than were asked for');
  assert.deepEqual(registers.asked, ['r4 256', 'w1 511 127', `w4 112 ${ALL_ONES}`, 'r2 2']);
});

test('outside of every window loads are all ones and stores are lost', () => {
  const { mmio, registers } = machine();
  for (const address of [BASE - 1, BASE + SIZE, 0, 2 ** 32 + BASE]) {
    assert.equal(mmio.read(address, 4), ALL_ONES);
    mmio.write(address, 4, 1);
  }
  assert.deepEqual(registers.asked, []);
});

test('two windows of one guest, of two servers, and the same place of another guest are kept apart', () => {
  const { xen, server, guest, registers, mmio } = machine();
  const second = addDomain(xen, 3);
  const other = addGuest(xen, 4, [second]);
  const guest2 = addGuest(xen, 5, [server, second]);
  const [next, foreign, mixed] = [new Registers(), new Registers(), new Registers()];
  serve(server, guest, BASE + SIZE, next);
  serve(second, other, BASE, foreign);
  serve(second, guest2, BASE, mixed);
  for (const [bus, address] of [
    [mmio, BASE],
    [mmio, BASE + SIZE],
    [other.ports.mmio, BASE],
    [guest2.ports.mmio, BASE],
    [mmio, BASE + 4],
  ] as const)
    bus.read(address, 4);
  assert.deepEqual(
    [registers, next, foreign, mixed].map(({ asked }) => asked),
    [['r4 0', 'r4 4'], ['r4 0'], ['r4 0'], ['r4 0']],
  );
  assert.equal(other.ports.mmio.read(BASE + SIZE, 4), ALL_ONES);
});

test('an access that nobody answers reads all ones, and the next one that is answered is right', () => {
  const { server, awake, registers, mmio } = machine();
  awake.length = 0;
  assert.equal(mmio.read(BASE + 8, 4), ALL_ONES);
  mmio.write(BASE + 8, 4, 5);
  awake.push(server);
  assert.equal(mmio.read(BASE + 12, 4), (12 << 16) | 1);
  assert.deepEqual(registers.asked, ['r4 12']);
});

test('after its server has gone a window reads all ones, and it can be served anew', () => {
  const { server, guest, registers, window, mmio } = machine();
  mmio.read(BASE, 4);
  window.close();
  assert.equal(mmio.read(BASE, 4), ALL_ONES);
  mmio.write(BASE, 4, 1);
  assert.equal(mmio.read(BASE + MMIO_INTERRUPT_STATUS, 4), ALL_ONES);
  const fresh = new Registers();
  serve(server, guest, BASE, fresh);
  assert.equal(mmio.read(BASE, 4), 1);
  assert.deepEqual([registers.asked.length, fresh.asked.length], [1, 1]);
});

test('whoever waits for an answer when the server goes gets all ones at once', () => {
  const xen = bootTestMachine();
  const server = addDomain(xen, 1);
  let answered = false;
  const guest = addDomain(xen, 2, {}, noTrace, (words, index, value) => {
    window.close();
    answered = Atomics.load(words, index) !== value;
    return answered;
  });
  xen.nameDeviceModel(guest.id, server.id);
  const window = serve(server, guest, BASE, new Registers());
  assert.equal(guest.ports.mmio.read(BASE, 4), ALL_ONES);
  assert.ok(answered);
});

test('a new server is never asked what an old one left unanswered', () => {
  const { server, awake, guest, window, mmio } = machine();
  awake.length = 0;
  mmio.write(BASE + MMIO_STATUS, 4, 0x55);
  window.close();
  const fresh = new Registers();
  serve(server, guest, BASE, fresh);
  while (server.ports.events.poll());
  assert.deepEqual(fresh.asked, []);
});

test('H27: an access is answered once, however often its event comes', () => {
  const { xen, server, guest, registers, mmio } = machine();
  mmio.read(BASE, 4);
  for (let port = 1; port < 64; port++) xen.events.raise(server.record, port);
  server.ports.events.poll();
  assert.deepEqual(registers.asked, ['r4 0']);
  assert.equal(guest.record.shutdownCode, -1);
});

test('a doorbell does not wait for the server: its bit is set and the server is woken', () => {
  const { server, guest, registers, mmio } = machine();
  let rung = 0;
  const base = BASE + SIZE;
  const window = server.ports.serveMmio(guest.id, base, SIZE, registers, () => rung++);
  while (server.ports.events.poll());
  for (const queue of [0, 31, 32, 63, 31]) mmio.write(base + MMIO_QUEUE_NOTIFY, 4, queue);
  assert.equal(rung, 0);
  server.ports.events.poll();
  assert.equal(rung, 1);
  assert.deepEqual([window.takeDoorbell(false), window.takeDoorbell(true)], [0x8000_0001, 0x8000_0001]);
  assert.deepEqual([window.takeDoorbell(false), window.takeDoorbell(true)], [0, 0]);
  assert.deepEqual(registers.asked, []);
});

test('F24: a notification of a queue that no doorbell has a bit for goes to the server as it is', () => {
  const { registers, window, mmio } = machine();
  for (const value of [64, 0xffff, ALL_ONES, -1]) mmio.write(BASE + MMIO_QUEUE_NOTIFY, 4, value);
  assert.deepEqual([window.takeDoorbell(false), window.takeDoorbell(true)], [0, 0]);
  assert.deepEqual(
    registers.asked,
    [64, 0xffff, ALL_ONES, ALL_ONES].map((value) => `w4 ${MMIO_QUEUE_NOTIFY} ${value}`),
  );
});

test('an interrupt sets status bits and reaches the guest; acknowledging clears exactly those named', () => {
  const { server, guest, registers, window, mmio } = machine();
  const port = guest.ports.events.allocateUnbound(server.id);
  let interrupts = 0;
  guest.ports.events.onEvent(port, () => interrupts++);
  window.interrupt(1);
  assert.ok(!guest.ports.events.pending, 'an interrupt without a route only sets its bit');
  mmio.routeInterrupt(BASE, port);
  window.interrupt(2);
  guest.ports.events.poll();
  assert.equal(interrupts, 1);
  assert.equal(mmio.read(BASE + MMIO_INTERRUPT_STATUS, 4), 3);
  mmio.write(BASE + MMIO_INTERRUPT_ACK, 4, 1);
  assert.equal(mmio.read(BASE + MMIO_INTERRUPT_STATUS, 4), 2);
  mmio.write(BASE + MMIO_INTERRUPT_ACK, 4, ALL_ONES);
  assert.equal(mmio.read(BASE + MMIO_INTERRUPT_STATUS, 4), 0);
  assert.deepEqual(registers.asked, []);
});

const overlaps: [what: string, base: number, size: number][] = [
  ['the same place', BASE, SIZE],
  ['one that ends inside it', BASE - SIZE / 2, SIZE],
  ['one that begins inside it', BASE + SIZE - 4, SIZE],
  ['one inside it', BASE + 0x10, 0x10],
  ['one around it', BASE - SIZE, 3 * SIZE],
  ['H28: one of no bytes', BASE + 2 * SIZE, 0],
  ['H28: one that ends before it begins', BASE + 2 * SIZE, -SIZE],
  ['H28: one below address 0', -SIZE, SIZE],
  ['H28: one that runs past 4 GiB', 2 ** 32 - SIZE, SIZE + 4],
];

for (const [what, base, size] of overlaps) {
  test(`where a device is already, ${what} is refused, as often as it is tried, and costs nothing`, () => {
    const { xen, server, guest, registers, mmio } = machine();
    const portBefore = server.ports.events.allocateUnbound(guest.id);
    server.ports.events.close(portBefore);
    const { free } = xen;
    const refused = () => server.ports.serveMmio(guest.id, base, size, registers, () => undefined);
    for (let i = 0; i < 300; i++) assert.throws(refused, { name: 'RangeError' });
    assert.deepEqual(xen.free, free);
    assert.equal(server.ports.events.allocateUnbound(guest.id), portBefore);
    assert.equal(mmio.read(BASE, 4), 1);
    assert.equal(registers.asked.length, 1);
    serve(server, guest, BASE + 4 * SIZE, registers);
    assert.equal(mmio.read(BASE + 4 * SIZE, 4), 2);
  });
}

test('one backend serves 200 devices of a guest through one server and one page, and gives all back', () => {
  const { xen, server, guest, window } = machine();
  const { frames } = xen.free;
  const windows = Array.from({ length: 200 }, (_, i) =>
    serve(server, guest, BASE + (i + 1) * SIZE, new Registers()),
  );
  assert.equal(xen.free.frames, frames);
  assert.equal(guest.ports.mmio.read(BASE + 150 * SIZE + 4, 4), (4 << 16) | 1);
  assert.equal(xen.servers.info(server.record, guest.record, 1, false), ENOENT);
  for (const each of windows) each.close();
  assert.equal(guest.ports.mmio.read(BASE + 150 * SIZE + 4, 4), ALL_ONES);
  window.close();
  assert.equal(xen.servers.info(server.record, guest.record, 0, false), ENOENT);
});

test('all windows of a server can be had and given back; one more is refused', () => {
  const { server, guest, window } = machine();
  // Apart from each other: windows that touch are one range.
  const place = (index: number) => BASE + index * 2 * SIZE;
  const windows = Array.from({ length: MAX_WINDOWS - 1 }, (_, i) =>
    serve(server, guest, place(i + 1), new Registers()),
  );
  assert.throws(() => serve(server, guest, place(MAX_WINDOWS), new Registers()), /error -12/);
  windows[7].close();
  serve(server, guest, place(MAX_WINDOWS), new Registers()).close();
  window.close();
});

test('H26: a server without event channels is refused a window and keeps the ones it has', () => {
  const { server, guest, mmio } = machine();
  const ports: EventPort[] = [];
  for (;;) {
    const port = server.ports.events.allocateUnbound(guest.id);
    if (port < 0) break;
    ports.push(port);
  }
  const another = () => serve(server, guest, BASE + SIZE, new Registers());
  for (let i = 0; i < 3; i++) assert.throws(another, /domain 1 has no event channels/);
  server.ports.events.close(ports[0]);
  another();
  assert.equal(mmio.read(BASE, 4), 1);
});

test('a domain that nobody named is refused, and so is one that was named for another guest', () => {
  const { xen, guest } = machine();
  const other = addGuest(xen, 4, []);
  const stranger = addDomain(xen, 3);
  xen.nameDeviceModel(other.id, stranger.id);
  assert.throws(() => serve(stranger, guest, BASE + SIZE, new Registers()), /not named as a device model/);
  assert.equal(xen.servers.info(stranger.record, guest.record, 1, false), ENOENT);
});

test('a guest that goes before its backend leaves nothing behind once the backend has let go', () => {
  const xen = bootTestMachine();
  const server = addDomain(xen, 1);
  const comeAndGo = () => {
    const guest = addGuest(xen, 2, [server]);
    const windows = [0, 1].map((i) => serve(server, guest, BASE + i * SIZE, new Registers()));
    guest.ports.mmio.read(BASE, 4);
    for (const _ of xen.destroyDomain(guest.id));
    // What its backend does with the windows meanwhile reaches nobody.
    windows[0].interrupt(1);
    windows[0].takeDoorbell(false);
    server.ports.events.poll();
    for (const window of windows) window.close();
    return xen.free;
  };
  // What the backend's own tables have grown by, they keep.
  const free = comeAndGo();
  assert.deepEqual(comeAndGo(), free);
  const again = addGuest(xen, 2, [server]);
  serve(server, again, BASE, new Registers());
  assert.equal(again.ports.mmio.read(BASE, 4), 1);
});

test('a backend that goes takes its windows along; its guest reads all ones and another may serve it', () => {
  const { xen, server, guest, mmio } = machine();
  const waiting = addDomain(xen, 4);
  for (const _ of xen.destroyDomain(server.id));
  assert.equal(mmio.read(BASE, 4), ALL_ONES);
  mmio.write(BASE + MMIO_QUEUE_NOTIFY, 4, 0);
  assert.equal(xen.domains.find(server.id), undefined);
  xen.nameDeviceModel(guest.id, waiting.id);
  serve(waiting, guest, BASE, new Registers());
});

test('a domain with the id of a backend that has gone is nobody to the guests of that one', () => {
  const { xen, server, guest } = machine();
  for (const _ of xen.destroyDomain(server.id));
  const heir = addDomain(xen, server.id);
  assert.throws(() => serve(heir, guest, BASE, new Registers()), /not named/);
});
