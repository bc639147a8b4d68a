import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  IOREQ_DATA_IS_PTR,
  IOREQ_DF,
  IOREQ_READ,
  IOREQ_TYPE_PIO,
  STATE_IOREQ_INPROCESS,
  STATE_IOREQ_NONE,
} from '../../../abi/ioreq.ts';
import { MMIO_INTERRUPT_ACK, MMIO_QUEUE_NOTIFY } from '../../../abi/virtio-mmio.ts';
import { type DomainId, domainId } from '../../../xen/ids.ts';
import type { MmioHandler } from '../../../xen/mmio.ts';
import { arenaOfTest, native } from '../native.test.helper.ts';
import { type FakeGuest, FakeKernel } from './fake-kernel.test.helper.ts';
import { GuestProcessor } from './guest-processor.test.helper.ts';
import { openXenHost } from './host.ts';
import type { IoreqServerRecords } from './ioreq-records.ts';

const GUEST = domainId(4);
const BASE = 0xd000_0000;
const SIZE = 0x200;
const ALL_ONES = 0xffff_ffff;

/** Registers that say what they were asked. */
class Registers implements MmioHandler {
  readonly seen: string[] = [];

  read(offset: number, size: number): number {
    this.seen.push(`r${size} ${offset.toString(16)}`);
    return offset;
  }

  write(offset: number, size: number, value: number): void {
    this.seen.push(`w${size} ${offset.toString(16)} ${value.toString(16)}`);
  }
}

/** Numbers of servers that outlive a process. */
class Records implements IoreqServerRecords {
  readonly kept = new Map<DomainId, number>();

  load(guest: DomainId): number | undefined {
    return this.kept.get(guest);
  }

  save(guest: DomainId, id: number | undefined): void {
    if (id === undefined) this.kept.delete(guest);
    else this.kept.set(guest, id);
  }
}

function openHost(kernel: FakeKernel, ioreqServers = new Records()) {
  return openXenHost({ libc: kernel.libc, arena: arenaOfTest(), id: domainId(0), ioreqServers });
}

function scene(guest: Partial<FakeGuest> = {}) {
  const kernel = new FakeKernel();
  kernel.addGuest(GUEST, guest);
  const records = new Records();
  const host = openHost(kernel, records);
  const registers = new Registers();
  const serve = (irq: number | undefined = 5, doorbell: () => void = () => undefined) =>
    host.serveMmio(GUEST, BASE, SIZE, registers, doorbell, irq);
  return { kernel, records, host, registers, serve, processor: new GuestProcessor(kernel, GUEST) };
}

const onX86 = { skip: native.skip || (process.arch === 'x64' ? false : 'the lines of the old PC are x86’s') };

test(
  'a PVH or PV guest is refused with the reason, before anything is called that Xen could die of',
  onX86,
  () => {
    for (const [kind, message] of [
      ['pvh', /domain 4 is a PVH guest: .*type="hvm"/],
      ['pv', /domain 4 is a PV guest: .*type="hvm"/],
    ] as const) {
      const { kernel, serve } = scene({ kind });
      assert.throws(() => serve(), { name: 'RangeError', message });
      assert.deepEqual([kernel.servers.size, kernel.lines.length, kernel.panicked], [0, 0, false]);
    }
  },
);

test(
  'a Xen of another version, which does not say what a guest is, is refused with the reason',
  onX86,
  () => {
    for (const version of [0x14, 0x15, 0x18]) {
      const { kernel, serve } = scene();
      kernel.domctlVersion = version;
      serve().close();
    }
    const { kernel, serve } = scene();
    kernel.domctlVersion = 0x99;
    assert.throws(() => serve(), /domctl versions 0x14, 0x15, .*Xen 4\.16 to 4\.22/);
    assert.equal(kernel.servers.size, 0);
  },
);

test('a domain that is not there is not taken for the next one, which Xen answers for', onX86, () => {
  const { kernel, host, registers } = scene();
  kernel.addGuest(9);
  assert.throws(
    () => host.serveMmio(domainId(8), BASE, SIZE, registers, () => undefined, 5),
    /domain 8: there is none, or it is going/,
  );
});

test('a line that the guest cannot have is refused, also none', onX86, () => {
  const { kernel, host, registers, serve } = scene();
  for (const irq of [16, -1, 1.5]) assert.throws(() => serve(irq), /expected 0 to 15/);
  assert.throws(
    () => host.serveMmio(GUEST, BASE, SIZE, registers, () => undefined),
    /interrupt line not given: expected 0 to 15/,
  );
  assert.equal(kernel.servers.size, 0);
});

test('each of several processors has its own request', onX86, () => {
  const { kernel, host, registers, serve } = scene({ vcpus: 4 });
  serve();
  host.events.poll();
  const processors = [0, 1, 2, 3].map((vcpu) => new GuestProcessor(kernel, GUEST, vcpu));
  for (const [i, processor] of processors.entries())
    assert.ok(processor.ask({ address: BASE + 4 * i, flags: IOREQ_READ }));
  host.events.poll();
  assert.deepEqual(
    processors.map((processor) => processor.take()),
    [0, 4, 8, 12],
  );
  assert.equal(registers.seen.length, 4);
});

test('the guest’s processor goes on before the doorbell is answered', onX86, () => {
  const { host, serve, processor } = scene();
  let answered: number | undefined;
  serve(5, () => {
    answered = processor.take();
  });
  processor.ask({ address: BASE + MMIO_QUEUE_NOTIFY, data: 1 });
  host.events.poll();
  assert.notEqual(answered, undefined);
});

test(
  'the line rises with the first reason, falls at the acknowledgement, and rises anew for what is left',
  onX86,
  () => {
    const { kernel, host, serve, processor } = scene();
    const server = serve();
    const acknowledge = (bits: number) => {
      processor.ask({ address: BASE + MMIO_INTERRUPT_ACK, data: bits });
      host.events.poll();
      processor.take();
    };
    server.interrupt(1);
    // A line that was high from before would not be noticed: it is lowered first.
    assert.deepEqual(kernel.lines.splice(0), ['5=0', '5=1']);
    server.interrupt(1);
    assert.deepEqual(kernel.lines.splice(0), []);
    server.interrupt(2);
    acknowledge(1);
    assert.deepEqual(kernel.lines.splice(0), ['5=0', '5=1']);
    acknowledge(2);
    assert.deepEqual(kernel.lines.splice(0), ['5=0']);
    server.interrupt(1);
    server.clearInterrupts();
    assert.deepEqual(kernel.lines.splice(0), ['5=1', '5=0']);
  },
);

test('accesses with repetitions go on in their direction; beside the window there is nothing', onX86, () => {
  const { host, registers, serve, processor } = scene();
  serve();
  processor.ask({ address: BASE + 0x108, count: 3, flags: IOREQ_DF, data: 0x11 });
  host.events.poll();
  processor.take();
  assert.deepEqual(registers.seen.splice(0), ['w4 108 11', 'w4 104 11', 'w4 100 11']);
  processor.ask({ address: BASE + SIZE - 4, count: 0xffff_ffff, data: 1 });
  host.events.poll();
  processor.take();
  assert.deepEqual(registers.seen.splice(0), ['w4 1fc 1']);
  processor.ask({ address: BASE + 0x100, size: 8, flags: IOREQ_READ });
  host.events.poll();
  assert.equal(processor.take(), 0x100);
  assert.deepEqual(registers.seen.splice(0), ['r4 100', 'r4 104']);
  processor.ask({ address: BASE + 0x101, size: 1, data: 0xabcd });
  host.events.poll();
  assert.deepEqual(registers.seen, ['w1 101 cd']);
});

test(
  'what lies in the guest’s memory, and other kinds of requests, read as all ones and write nowhere',
  onX86,
  () => {
    const { host, registers, serve, processor } = scene();
    serve();
    for (const access of [
      { flags: IOREQ_READ | IOREQ_DATA_IS_PTR, count: 4 },
      { flags: IOREQ_READ, type: IOREQ_TYPE_PIO },
      { flags: IOREQ_READ, type: 8 },
    ]) {
      processor.ask({ address: BASE, ...access });
      host.events.poll();
      assert.equal(processor.take(), ALL_ONES);
    }
    processor.ask({ address: BASE, flags: IOREQ_DATA_IS_PTR });
    host.events.poll();
    assert.notEqual(processor.take(), undefined);
    assert.deepEqual(registers.seen, []);
  },
);

test('H27: a request that is not ready is not answered, whatever woke us', onX86, () => {
  const { kernel, host, registers, serve, processor } = scene();
  serve();
  host.events.poll();
  processor.ask({ address: BASE, flags: IOREQ_READ });
  for (const state of [STATE_IOREQ_NONE, STATE_IOREQ_INPROCESS]) {
    processor.state = state;
    kernel.wake(GUEST, 0);
    host.events.poll();
    assert.equal(processor.state, state);
  }
  assert.deepEqual(registers.seen, []);
});

test(
  'C1: whoever takes the place of a killed process answers what waits, begun or not, and keeps the ranges',
  onX86,
  () => {
    for (const begun of [false, true]) {
      const { kernel, records, serve, processor } = scene();
      serve();
      processor.ask({ address: BASE + 8, flags: IOREQ_READ });
      if (begun) processor.state = STATE_IOREQ_INPROCESS;
      kernel.killProcess();
      assert.equal(kernel.servers.size, 1);
      const host = openHost(kernel, records);
      const registers = new Registers();
      host.serveMmio(GUEST, BASE, SIZE, registers, () => undefined, 5);
      host.events.poll();
      assert.equal(processor.take(), 8);
      assert.deepEqual([registers.seen, kernel.servers.size], [['r4 8'], 1]);
      // Its own second device at the same place is a mistake as ever.
      assert.throws(
        () => host.serveMmio(GUEST, BASE, SIZE, registers, () => undefined, 5),
        /a device at 0xd0000000/,
      );
      host.close();
      assert.deepEqual([kernel.servers.size, records.kept.size], [0, 0]);
    }
  },
);

test(
  'a server can be left for a successor on purpose; one whose guest has gone is not looked for',
  onX86,
  () => {
    const { kernel, records, host, serve } = scene();
    serve();
    host.close({ keepServers: true });
    assert.deepEqual(
      [kernel.servers.size, kernel.channels, kernel.open, records.kept.get(GUEST)],
      [1, 0, 0, 0],
    );
    kernel.removeGuest(GUEST);
    kernel.addGuest(GUEST);
    const successor = openHost(kernel, records);
    const server = successor.serveMmio(GUEST, BASE, SIZE, new Registers(), () => undefined, 5);
    assert.equal(kernel.servers.size, 1);
    server.close();
    assert.equal(kernel.servers.size, 0);
  },
);

test('two processes do not serve one guest through one server', onX86, () => {
  const { kernel, records, serve } = scene();
  serve();
  const other = openHost(kernel, records);
  assert.throws(
    () => other.serveMmio(GUEST, BASE, SIZE, new Registers(), () => undefined, 5),
    /is another program serving this domain\?/,
  );
  assert.equal(kernel.servers.size, 1);
});

test('C4: when the guest has gone, its windows still close, and nothing is left', onX86, () => {
  const { kernel, host, serve } = scene();
  const server = serve();
  kernel.removeGuest(GUEST);
  server.interrupt(1);
  server.close();
  server.close();
  assert.equal(kernel.channels, 0);
  host.close();
  assert.equal(kernel.open, 0);
});
