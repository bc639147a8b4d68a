// Runs in dom0 of a real Xen: the contract of BackendHost.serveMmio with a guest whose processor makes the accesses
// (guest/registers.S), and what a PVH guest gets to hear.
//   node dist/test/xen/registers.js HVM_DOMAIN PVH_DOMAIN PROGRAM
// Both guests are there already, paused; the first is set going here.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { MMIO_INTERRUPT_ACK } from '../../src/abi/virtio-mmio.ts';
import { XEN_PAGE_SIZE } from '../../src/abi/xen.ts';
import { Arena } from '../../src/hosts/linux/arena.ts';
import { Epoll } from '../../src/hosts/linux/epoll.ts';
import { loadLibc } from '../../src/hosts/linux/libc.ts';
import { openXenHost, type XenHost } from '../../src/hosts/linux/xen/host.ts';
import type { IoreqServerRecords } from '../../src/hosts/linux/xen/ioreq-records.ts';
import { TRANSFER_SCRATCH_SIZE, TransferScratch } from '../../src/hosts/linux/transfer-scratch.ts';
import { VectoredImage } from '../../src/hosts/linux/vectored-image.ts';
import { Segments } from '../../src/memory/segments.ts';
import { type DomainId, domainId } from '../../src/xen/ids.ts';
import { mmioServerContract } from '../contract/mmio-server.ts';

/** Where the guest's program was loaded. */
const LOADED_AT = 0x10_0000;
/** movl $0x200000, %esp */
const FIRST_INSTRUCTION = Buffer.from([0xbc, 0x00, 0x00, 0x20, 0x00]);
const NOBODY = domainId(0x7abc);
const PATIENCE_MILLISECONDS = 30_000;
/** Where the guest reads what to do, and the registers there. */
const CONTROL = 0xd001_0000;
const [COMMAND, ADDRESS, VALUE, RESULT] = [0, 4, 8, 12];
const CONTROL_IRQ = 7;
const IRQ = 5;
/** Commands, by the bytes that they are about. */
const READ: Readonly<Record<number, number>> = { 1: 8, 2: 16, 4: 24 };
const WRITE: Readonly<Record<number, number>> = { 1: 32, 2: 40, 4: 48 };
const RAISED_LINES = 56;

const [guest, pvh] = process.argv.slice(2, 4).map((word) => domainId(Number(word)));
const program = readFileSync(process.argv[4]);
const libc = loadLibc();
const arena = new Arena(libc, 2 ** 18 + TRANSFER_SCRATCH_SIZE);
const imageHost = { libc, arena, scratch: new TransferScratch(arena) };
const epoll = new Epoll(libc, arena);
/** Numbers of ioreq servers that are kept from one host to the next. */
const kept = new Map<DomainId, number>();
const ioreqServers: IoreqServerRecords = {
  load: (domain) => kept.get(domain),
  save(domain, id) {
    if (id === undefined) kept.delete(domain);
    else kept.set(domain, id);
  },
};
let host = open();

function open(): XenHost {
  const opened = openXenHost({ libc, arena, id: domainId(0), ioreqServers });
  for (const fd of opened.descriptors) epoll.add(fd, 0);
  return opened;
}

/** What the guest is to do next, and what came of it. */
const order = { command: 0, address: 0, value: 0, result: 0, done: true };

function command(number: number, address = 0, value = 0): void {
  Object.assign(order, { command: number, address, value, done: false });
}

/** Has the guest do one thing, and serves it meanwhile. */
function perform(number: number, address = 0, value = 0): number {
  command(number, address, value);
  return finish();
}

function finish(): number {
  while (!order.done) {
    assert.ok(epoll.wait(PATIENCE_MILLISECONDS, () => undefined) > 0, 'the guest goes on');
    host.events.poll();
  }
  return order.result;
}

function serveControl(): void {
  const registers = new Map<number, () => number>([
    [COMMAND, () => order.command],
    [ADDRESS, () => order.address],
    [VALUE, () => order.value],
  ]);
  const handler = {
    read: (offset: number) => registers.get(offset)?.() ?? 0,
    write(offset: number, _size: number, value: number): void {
      if (offset !== RESULT) return;
      Object.assign(order, { result: value, command: 0, done: true });
    },
  };
  host.serveMmio(guest, CONTROL, 16, handler, () => undefined, CONTROL_IRQ);
}

serveControl();
execFileSync('xl', ['unpause', `${guest}`]);

let raised = false;
let interrupts = 0;

mmioServerContract('XenHost on Xen', () => ({
  host,
  guest,
  nobody: NOBODY,
  bus: {
    read: (address, size) => perform(READ[size], address) >>> 0,
    write(address, size, value) {
      perform(WRITE[size], address, value);
      if (address % 0x200 === MMIO_INTERRUPT_ACK) raised = false;
    },
  },
  interrupts() {
    const isRaised = ((perform(RAISED_LINES) >>> IRQ) & 1) === 1;
    if (isRaised && !raised) interrupts++;
    raised = isRaised;
    return interrupts;
  },
}));

test('a PVH guest is refused with the reason, and Xen lives', () => {
  const handler = { read: () => 0, write: () => undefined };
  assert.throws(() => host.serveMmio(pvh, CONTROL, 16, handler, () => undefined, IRQ), {
    name: 'RangeError',
    message: /is a PVH guest/,
  });
  assert.equal(perform(READ[1], CONTROL + COMMAND), READ[1]);
});

test('a guest’s memory is there without grants, and holes in it can be looked at', () => {
  const { region, base, close } = host.mapForeignMemory(guest);
  assert.equal(base, 0);
  const code = program.subarray(program.indexOf(FIRST_INSTRUCTION));
  assert.deepEqual(region.u8.slice(LOADED_AT, LOADED_AT + 32), new Uint8Array(code.subarray(0, 32)));
  // The graphics card's.
  region.u8[0xa_0000] = 1;
  const word = 0x30_0000;
  perform(WRITE[4], word, 0x1234_5678);
  assert.equal(region.u32[word / 4], 0x1234_5678);
  region.u32[word / 4] = 77;
  assert.equal(perform(READ[4], word), 77);
  close();
});

test('R1: a disk moves data from and to a guest’s memory without grants, also past the page cache', () => {
  const { region, close } = host.mapForeignMemory(guest);
  const place = 0x30_0000;
  const segments = new Segments();
  segments.push(region, place, XEN_PAGE_SIZE);
  const image = '/root/no-grants.img';
  for (const direct of [false, true]) {
    const pattern = direct ? 0x5a : 0x3c;
    writeFileSync(image, new Uint8Array(2 * XEN_PAGE_SIZE).fill(pattern));
    const store = new VectoredImage(imageHost, image, { readOnly: false, direct });
    assert.equal(store.read(0, segments), 'ok');
    assert.equal(perform(READ[1], place), pattern);
    perform(WRITE[1], place, 1);
    assert.equal(store.write(XEN_PAGE_SIZE, segments), 'ok');
    store.close();
    assert.deepEqual([...readFileSync(image).subarray(XEN_PAGE_SIZE, XEN_PAGE_SIZE + 2)], [1, pattern]);
  }
  rmSync(image);
  close();
});

test('C1: a guest that waits for a register is answered by the host that comes after', () => {
  command(READ[4], CONTROL + COMMAND);
  host.close({ keepServers: true });
  assert.deepEqual([...kept.keys()], [guest]);
  host = open();
  serveControl();
  assert.equal(finish(), READ[4]);
  host.close();
  assert.equal(kept.size, 0);
});
