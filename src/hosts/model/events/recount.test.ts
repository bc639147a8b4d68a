// Invariants 4 and 6 for event channels: after any operations of three domains, valid or not, and whatever a guest
// writes into its event words, a recount from scratch finds what Xen has counted, and a refusal has changed nothing.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { NR_VIRQS } from '../../../abi/event-channel.ts';
import { DOMID_SELF } from '../../../abi/xen.ts';
import { addDomain, bootTestMachine, type TestDomain } from '../domains.test.helper.ts';
import { eventState, recount } from './recount.test.helper.ts';

/** Ports of a domain: few, so that they are used up. */
const PORTS = 7;
const VCPUS = 2;
/** Pages that guests use as control blocks and event words. */
const PAGES = 3;

const KINDS = [
  'allocate',
  'bind',
  'bind',
  'bind virq',
  'bind ipi',
  'close',
  'send',
  'status',
  'bind vcpu',
  'unmask',
  'reset',
  'init control',
  'expand array',
  'set priority',
  'allocate for Xen',
  'close for Xen',
  'raise',
  'raise virq',
  'scribble',
] as const;

interface Operation {
  readonly kind: (typeof KINDS)[number];
  readonly caller: number;
  readonly other: number;
  readonly port: number;
  /** A processor, a page, a priority or a word to write, as the operation needs it. */
  readonly number: number;
}

class Bench {
  readonly xen = bootTestMachine();
  readonly domains = [0, 1, 2].map((id) =>
    addDomain(this.xen, id, { maxEventChannels: PORTS, vcpus: VCPUS, memory: PAGES * 4096 }),
  );

  run(operation: Operation): void {
    const before = eventState(this.domains);
    const result = this.perform(operation);
    if (result < 0) assert.deepEqual(eventState(this.domains), before);
    recount(this.domains);
  }

  perform({ kind, caller: id, other, port, number }: Operation): number {
    const { events, domains } = this.xen;
    const caller = this.domains[id].record;
    const target = domains.findFor(caller, other);
    switch (kind) {
      case 'allocate':
        return target ? events.allocateUnbound(target, number % 4, caller) : -1;
      case 'bind':
        return events.bindInterdomain(caller, other, port);
      case 'bind virq':
        return events.bindVirq(caller, number % (NR_VIRQS + 1), port % (VCPUS + 1));
      case 'bind ipi':
        return events.bindIpi(caller, number % (VCPUS + 1));
      case 'close':
        return events.close(caller, port);
      case 'send':
        return events.send(caller, port);
      case 'status':
        return target && typeof events.status(target, port, caller) === 'object' ? 0 : -1;
      case 'bind vcpu':
        return events.bindVcpu(caller, port, number % (VCPUS + 1));
      case 'unmask':
        return events.unmask(caller, port);
      case 'reset':
        return target ? events.reset(target, caller) : -1;
      case 'init control':
        return events.initControl(caller, number % (VCPUS + 1), number % (PAGES + 1), (number >>> 3) % 5000);
      case 'expand array':
        return events.expandArray(caller, number % (PAGES + 1));
      case 'set priority':
        return events.setPriority(caller, port, number % 17);
      case 'allocate for Xen':
        return events.allocateForXen(caller, other, 0);
      case 'close for Xen':
        return events.closeForXen(caller, port);
      default:
        return this.act(kind, this.domains[id], port, number);
    }
  }

  /** What is done without asking whether it may be. */
  act(kind: Operation['kind'], { record, ports }: TestDomain, port: number, number: number): number {
    if (kind === 'raise') this.xen.events.raise(record, port);
    else if (kind === 'raise virq') this.xen.events.raiseVirq(record, number % NR_VIRQS, number % VCPUS);
    else
      for (let page = 0; page < PAGES; page++) ports.memory.region.i32[page * 1024 + (port & 1023)] = number;
    return 0;
  }
}

const operation: fc.Arbitrary<Operation> = fc.record({
  kind: fc.constantFrom(...KINDS),
  caller: fc.nat(2),
  other: fc.constantFrom(0, 1, 2, 3, DOMID_SELF),
  port: fc.oneof(
    { weight: 12, arbitrary: fc.nat(PORTS + 1) },
    { weight: 1, arbitrary: fc.constantFrom(-1, 128, 4096, 2 ** 17, 0xffff_ffff) },
  ),
  number: fc.oneof(fc.nat(40), fc.integer()).map((value) => value >>> 0),
});

test('4 6: a recount agrees after every operation on event channels, and refusals change nothing', () => {
  fc.assert(
    fc.property(fc.array(operation, { minLength: 30, maxLength: 80 }), (operations) => {
      const bench = new Bench();
      for (const each of operations) bench.run(each);
    }),
    { seed: 23, numRuns: 150 },
  );
});

test('the end of a domain closes its ports in slices, leaves the far ends unbound, and gives all pages back', () => {
  const xen = bootTestMachine();
  const [zero, one] = [0, 1].map((id) => addDomain(xen, id));
  const before = xen.free;
  const two = addDomain(xen, 2, { maxEventChannels: 4095 });
  const nears: number[] = [];
  for (let i = 0; i < 1000; i++) {
    const far = xen.events.allocateUnbound(two.record, one.id);
    if (i < 900) nears.push(xen.events.bindInterdomain(one.record, two.id, far));
  }
  assert.ok(Math.min(...nears) > 0);
  for (const _ of xen.destroyDomain(2)) recount([zero, one, two]);
  for (const near of nears) {
    assert.deepEqual(xen.events.status(one.record, near), { status: 1, vcpu: 0, remote: 2, remotePort: 0 });
    assert.equal(xen.events.close(one.record, near), 0);
  }
  xen.events.raise(two.record, 1);
  // What is left are the pages of records that domain 1 has grown by.
  assert.equal(xen.free.frames, before.frames);
  assert.equal(before.heapPages - xen.free.heapPages, Math.ceil(901 / 128) - 1);
  recount([zero, one]);
});
