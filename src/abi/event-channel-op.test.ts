// The event channel hypercall's arguments and numbers against public/event_channel.h, LP64.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as event from './event-channel.ts';
import * as op from './event-channel-op.ts';

const layouts = [
  [op.evtchnAllocUnbound, 8, { dom: 0, remote_dom: 2, port: 4 }],
  [op.evtchnBindInterdomain, 12, { remote_dom: 0, remote_port: 4, local_port: 8 }],
  [op.evtchnBindVirq, 12, { virq: 0, vcpu: 4, port: 8 }],
  [op.evtchnBindPirq, 12, { pirq: 0, flags: 4, port: 8 }],
  [op.evtchnBindIpi, 8, { vcpu: 0, port: 4 }],
  [op.evtchnPort, 4, { port: 0 }],
  [op.evtchnStatus, 24, { dom: 0, port: 4, status: 8, vcpu: 12, u_dom: 16, u_high: 18, u_port: 20 }],
  [op.evtchnBindVcpu, 8, { port: 0, vcpu: 4 }],
  [op.evtchnReset, 2, { dom: 0 }],
  [op.evtchnInitControl, 24, { control_gfn: 0, offset: 8, vcpu: 12, link_bits: 16 }],
  [op.evtchnExpandArray, 8, { array_gfn: 0 }],
  [op.evtchnSetPriority, 8, { port: 0, priority: 4 }],
] as const;

for (const [struct, size, offsets] of layouts) {
  test(`struct ${struct.name} has ${size} bytes and the header's offsets`, () => {
    assert.equal(struct.size, size);
    const named = struct.fields.filter(({ name }) => !name.startsWith('_'));
    assert.deepEqual(Object.fromEntries(named.map(({ name, offset }) => [name, offset])), offsets);
  });
}

test('EVTCHNOP_ numbers count from bind_interdomain 0 to reset_cont 14', () => {
  const operations = [
    op.EVTCHNOP_BIND_INTERDOMAIN,
    op.EVTCHNOP_BIND_VIRQ,
    op.EVTCHNOP_BIND_PIRQ,
    op.EVTCHNOP_CLOSE,
    op.EVTCHNOP_SEND,
    op.EVTCHNOP_STATUS,
    op.EVTCHNOP_ALLOC_UNBOUND,
    op.EVTCHNOP_BIND_IPI,
    op.EVTCHNOP_BIND_VCPU,
    op.EVTCHNOP_UNMASK,
    op.EVTCHNOP_RESET,
    op.EVTCHNOP_INIT_CONTROL,
    op.EVTCHNOP_EXPAND_ARRAY,
    op.EVTCHNOP_SET_PRIORITY,
    op.EVTCHNOP_RESET_CONT,
  ];
  assert.deepEqual(operations, [...operations.keys()]);
});

test('EVTCHNSTAT_ and VIRQ_ numbers', () => {
  const statuses = [
    event.EVTCHNSTAT_CLOSED,
    event.EVTCHNSTAT_UNBOUND,
    event.EVTCHNSTAT_INTERDOMAIN,
    event.EVTCHNSTAT_PIRQ,
    event.EVTCHNSTAT_VIRQ,
    event.EVTCHNSTAT_IPI,
  ];
  assert.deepEqual(statuses, [0, 1, 2, 3, 4, 5]);
  assert.deepEqual(
    [event.VIRQ_TIMER, event.VIRQ_DEBUG, event.VIRQ_CONSOLE, event.VIRQ_DOM_EXC],
    [0, 1, 2, 3],
  );
  assert.deepEqual(
    [event.VIRQ_XENOPROF, event.VIRQ_ARGO, event.VIRQ_XENPMU, event.NR_VIRQS],
    [7, 11, 13, 24],
  );
});

test('FIFO: 2^17 ports, bits 31 to 28 of an event word, 16 queues, a control block of 72 bytes', () => {
  assert.deepEqual([event.EVTCHN_FIFO_PORTS, event.EVTCHN_FIFO_LINK_MASK], [131072, 0x1ffff]);
  const bits = [
    event.EVTCHN_FIFO_PENDING,
    event.EVTCHN_FIFO_MASKED,
    event.EVTCHN_FIFO_LINKED,
    event.EVTCHN_FIFO_BUSY,
  ];
  assert.deepEqual(
    bits.map((bit) => 31 - Math.clz32(bit)),
    [31, 30, 29, 28],
  );
  assert.deepEqual([event.EVTCHN_FIFO_QUEUES, event.EVTCHN_FIFO_PRIORITY_DEFAULT], [16, 7]);
  assert.deepEqual(
    [event.CONTROL_BLOCK_READY, event.CONTROL_BLOCK_HEADS, event.CONTROL_BLOCK_SIZE],
    [0, 8, 72],
  );
});
