// EVTCHNOP_ as a guest's kernel makes it: arguments in its memory, answers in the arguments, and every refusal that
// common/event_channel.c has, in its order.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as op from '../../../abi/event-channel-op.ts';
import { DOMID_SELF } from '../../../abi/xen.ts';
import type { FieldKind, RecordOf, Struct } from '../../../abi/struct.ts';
import { addDomain, bootTestMachine, type TestDomain } from '../domains.test.helper.ts';
import { EACCES, EBUSY, EEXIST, EFAULT, EINVAL, ENOENT, ENOSYS, EOPNOTSUPP, EPERM, ESRCH } from '../errno.ts';
import { eventState } from './recount.test.helper.ts';

type Fields = Readonly<Record<string, FieldKind>>;

/** Where a guest's kernel puts its arguments. */
const ARGUMENT = 0x1230;
/** No memory stands there. */
const NOWHERE = 0xd000_0000;
const GUEST = 1;

/** Makes the hypercall. Returns its result and the argument as it is afterwards. */
function call<F extends Fields>(
  { ports }: TestDomain,
  command: number,
  struct: Struct<F>,
  values: Partial<RecordOf<F>>,
): { result: number; argument: RecordOf<F> } {
  ports.addressSpace.write(ARGUMENT, struct.make(values).bytes);
  const result = ports.eventChannelOp(command, ARGUMENT);
  return { result, argument: struct.over(ports.addressSpace.read(ARGUMENT, struct.size)) };
}

function machine() {
  const xen = bootTestMachine();
  const zero = addDomain(xen, 0, { vcpus: 2 });
  const [one, two] = [GUEST, 2].map((id) => addDomain(xen, id, { vcpus: 2 }));
  return { xen, zero, one, two, all: [zero, one, two] };
}

const allocate = (domain: TestDomain, dom: number, remote: number) =>
  call(domain, op.EVTCHNOP_ALLOC_UNBOUND, op.evtchnAllocUnbound, { dom, remote_dom: remote });
const bind = (domain: TestDomain, remote: number, port: number) =>
  call(domain, op.EVTCHNOP_BIND_INTERDOMAIN, op.evtchnBindInterdomain, {
    remote_dom: remote,
    remote_port: port,
  });
const bindVirq = (domain: TestDomain, virq: number, vcpu: number) =>
  call(domain, op.EVTCHNOP_BIND_VIRQ, op.evtchnBindVirq, { virq, vcpu });
const bindVcpu = (domain: TestDomain, port: number, vcpu: number) =>
  call(domain, op.EVTCHNOP_BIND_VCPU, op.evtchnBindVcpu, { port, vcpu }).result;
const onPort = (domain: TestDomain, command: number, port: number) =>
  call(domain, command, op.evtchnPort, { port }).result;
const reset = (domain: TestDomain, dom: number) =>
  call(domain, op.EVTCHNOP_RESET, op.evtchnReset, { dom }).result;

function status(domain: TestDomain, dom: number, port: number): (number | undefined)[] {
  const { result, argument } = call(domain, op.EVTCHNOP_STATUS, op.evtchnStatus, { dom, port });
  return result < 0 ? [result] : [argument.status, argument.vcpu, argument.u_dom, argument.u_port];
}

test('a channel from allocation to its end, by hypercalls and nothing else', () => {
  const { one, two } = machine();
  const far = allocate(one, DOMID_SELF, two.id);
  assert.deepEqual([far.result, far.argument.port], [0, 1]);
  assert.deepEqual(status(one, DOMID_SELF, 1), [1, 0, two.id, 0]);
  const near = bind(two, one.id, 1);
  assert.deepEqual([near.result, near.argument.local_port], [0, 1]);
  assert.deepEqual(status(two, DOMID_SELF, 1), [2, 0, one.id, 1]);
  let events = 0;
  one.ports.events.onEvent(1 as never, () => events++);
  assert.equal(onPort(two, op.EVTCHNOP_SEND, 1), 0);
  one.ports.events.poll();
  assert.equal(events, 1);
  assert.equal(onPort(one, op.EVTCHNOP_CLOSE, 1), 0);
  assert.deepEqual(status(one, DOMID_SELF, 1), [0, 0, 0, 0]);
  assert.deepEqual(status(two, DOMID_SELF, 1), [1, 0, one.id, 0]);
});

test('alloc_unbound: for another domain only by a privileged one; DOMID_SELF as the remote is the caller', () => {
  const { zero, one, two, all } = machine();
  const before = eventState(all);
  assert.equal(allocate(one, two.id, 0).result, EPERM);
  assert.equal(allocate(one, 99, 0).result, ESRCH);
  assert.deepEqual(eventState(all), before);
  assert.equal(allocate(zero, one.id, two.id).argument.port, 1);
  assert.deepEqual(status(one, one.id, 1), [1, 0, two.id, 0]);
  assert.equal(allocate(zero, one.id, DOMID_SELF).argument.port, 2);
  assert.deepEqual(status(one, one.id, 2), [1, 0, zero.id, 0]);
  // A domain that does not exist may be named: it may come yet.
  assert.equal(allocate(one, DOMID_SELF, 0xffff).result, 0);
  assert.deepEqual(status(one, one.id, 3), [1, 0, 0xffff, 0]);
});

test('status: of another domain only for a privileged one; the first page of ports has a status, used or not', () => {
  const { zero, one, two } = machine();
  allocate(one, DOMID_SELF, two.id);
  assert.deepEqual(status(zero, one.id, 1), [1, 0, two.id, 0]);
  assert.deepEqual(status(two, one.id, 1), [EPERM]);
  assert.deepEqual(status(two, one.id, 128), [EINVAL]);
  assert.deepEqual(status(two, 99, 1), [ESRCH]);
  assert.deepEqual(status(one, DOMID_SELF, 0), [0, 0, 0, 0]);
  assert.deepEqual(status(one, DOMID_SELF, 127), [0, 0, 0, 0]);
});

test('bind_virq: each processor has a timer of its own, and what is the machine’s belongs to domain 0', () => {
  const { zero, one } = machine();
  assert.equal(bindVirq(one, 24, 0).result, EINVAL);
  assert.equal(bindVirq(one, 0xffff_ffff, 0).result, EINVAL);
  assert.equal(bindVirq(one, 0, 2).result, ENOENT);
  assert.equal(bindVirq(one, 11, 1).result, EINVAL);
  assert.equal(bindVirq(one, 3, 0).result, EBUSY);
  assert.equal(bindVirq(zero, 3, 1).result, EINVAL);
  assert.deepEqual(
    [0, 1].map((vcpu) => bindVirq(one, 0, vcpu).argument.port),
    [1, 2],
  );
  assert.equal(bindVirq(one, 0, 1).result, EEXIST);
  assert.deepEqual(status(one, DOMID_SELF, 2), [4, 1, 0, 0]);
  assert.equal(bindVirq(zero, 3, 0).argument.port, 1);
  assert.deepEqual(status(zero, DOMID_SELF, 1), [4, 0, 3, 0]);
  assert.equal(onPort(zero, op.EVTCHNOP_CLOSE, 1), 0);
  assert.equal(bindVirq(zero, 3, 0).argument.port, 1);
});

test('a virtual interrupt reaches the port and the processor to which it is bound, and no other', () => {
  const { xen, one, two } = machine();
  bindVirq(one, 0, 0);
  bindVirq(one, 0, 1);
  const heard: number[] = [];
  for (const port of [1, 2]) one.ports.events.onEvent(port as never, () => heard.push(port));
  xen.events.raiseVirq(one.record, 0, 1);
  xen.events.raiseVirq(two.record, 0, 0);
  one.ports.events.poll();
  assert.deepEqual([heard, two.ports.events.pending], [[2], false]);
  xen.events.raiseVirq(one.record, 1, 0);
  assert.ok(!one.ports.events.pending);
});

test('VIRQ_DOM_EXC tells domain 0 that a domain was ended for a crash, and that one has gone', () => {
  const { xen, zero, one } = machine();
  let told = 0;
  bindVirq(zero, 3, 0);
  zero.ports.events.onEvent(1 as never, () => told++);
  xen.domains.crash(one.record);
  zero.ports.events.poll();
  assert.equal(told, 1);
  for (const _ of xen.destroyDomain(2)) assert.ok(!zero.ports.events.pending);
  zero.ports.events.poll();
  assert.equal(told, 2);
});

test('bind_ipi: the domain tells its own processor; the port stays with that processor', () => {
  const { one } = machine();
  assert.equal(call(one, op.EVTCHNOP_BIND_IPI, op.evtchnBindIpi, { vcpu: 2 }).result, ENOENT);
  assert.equal(call(one, op.EVTCHNOP_BIND_IPI, op.evtchnBindIpi, { vcpu: 1 }).argument.port, 1);
  assert.deepEqual(status(one, DOMID_SELF, 1), [5, 1, 0, 0]);
  assert.equal(onPort(one, op.EVTCHNOP_SEND, 1), 0);
  const info = new Uint8Array(one.xen.state.memory, one.record.sharedInfo, 128);
  assert.deepEqual([info[0], info[64]], [0, 1]);
  assert.equal(bindVcpu(one, 1, 0), EINVAL);
});

test('bind_vcpu moves the events that are still to come', () => {
  const { one, two } = machine();
  allocate(one, DOMID_SELF, two.id);
  bind(two, one.id, 1);
  assert.equal(bindVcpu(one, 1, 2), ENOENT);
  assert.equal(bindVcpu(one, 5, 1), EINVAL);
  assert.equal(bindVcpu(one, 128, 1), EINVAL);
  assert.equal(bindVcpu(one, 0, 1), EINVAL);
  assert.equal(bindVcpu(one, 1, 1), 0);
  onPort(two, op.EVTCHNOP_SEND, 1);
  const info = new Uint8Array(one.xen.state.memory, one.record.sharedInfo, 128);
  assert.deepEqual([info[0], info[8], info[64], info[72]], [0, 0, 1, 1]);
  bindVirq(one, 0, 1);
  assert.equal(bindVcpu(one, 2, 0), EINVAL);
  bindVirq(one, 11, 0);
  assert.equal(bindVcpu(one, 3, 1), 0);
  // Closed and taken again, a port is processor 0's.
  onPort(one, op.EVTCHNOP_CLOSE, 1);
  allocate(one, DOMID_SELF, two.id);
  assert.deepEqual(status(one, DOMID_SELF, 1), [1, 0, two.id, 0]);
});

test('bind_pirq: no guest has a physical interrupt, and a guest on Arm cannot even ask', () => {
  const { xen, one } = machine();
  const pirq = (domain: TestDomain, number: number) =>
    call(domain, op.EVTCHNOP_BIND_PIRQ, op.evtchnBindPirq, { pirq: number }).result;
  assert.equal(pirq(one, 1), EINVAL);
  assert.equal(pirq(addDomain(xen, 3, { kind: 'pv' }), 1), EPERM);
  assert.equal(pirq(addDomain(xen, 4, { kind: 'pv' }), 0xffff_ffff), EINVAL);
  const arm = addDomain(xen, 5, { architecture: 'arm' });
  assert.equal(xen.events.bindPirq(arm.record, 1), EOPNOTSUPP);
});

test('unmask, set_priority, init_control and expand_array: what they answer in the 2-level ABI', () => {
  const { one } = machine();
  allocate(one, DOMID_SELF, 2);
  assert.deepEqual(
    [0, 1, 2, 128].map((port) => onPort(one, op.EVTCHNOP_UNMASK, port)),
    [0, 0, 0, EINVAL],
  );
  const priority = (port: number) =>
    call(one, op.EVTCHNOP_SET_PRIORITY, op.evtchnSetPriority, { port, priority: 1 }).result;
  assert.deepEqual([priority(1), priority(128)], [ENOSYS, EINVAL]);
  assert.equal(
    call(one, op.EVTCHNOP_EXPAND_ARRAY, op.evtchnExpandArray, { array_gfn: 1 }).result,
    EOPNOTSUPP,
  );
  const control = (values: { control_gfn: number; offset: number; vcpu: number }) =>
    call(one, op.EVTCHNOP_INIT_CONTROL, op.evtchnInitControl, values);
  const before = eventState([one]);
  assert.equal(control({ control_gfn: 1, offset: 0, vcpu: 2 }).result, ENOENT);
  assert.equal(control({ control_gfn: 1, offset: 4096 - 64, vcpu: 0 }).result, EINVAL);
  assert.equal(control({ control_gfn: 1, offset: 12, vcpu: 0 }).result, EINVAL);
  assert.equal(control({ control_gfn: 64, offset: 0, vcpu: 0 }).result, EINVAL);
  assert.equal(control({ control_gfn: 2 ** 40, offset: 0, vcpu: 0 }).result, EINVAL);
  assert.deepEqual(eventState([one]), before);
  const done = control({ control_gfn: 1, offset: 4096 - 72, vcpu: 1 });
  assert.deepEqual([done.result, done.argument.link_bits], [0, 17]);
  assert.equal(control({ control_gfn: 2, offset: 0, vcpu: 1 }).result, EINVAL);
  assert.deepEqual([priority(1), priority(2), priority(0)], [0, EACCES, EACCES]);
  const last = { port: 1, priority: 16 };
  assert.equal(call(one, op.EVTCHNOP_SET_PRIORITY, op.evtchnSetPriority, last).result, EINVAL);
  assert.equal(call(one, op.EVTCHNOP_EXPAND_ARRAY, op.evtchnExpandArray, { array_gfn: 64 }).result, EINVAL);
  assert.equal(call(one, op.EVTCHNOP_EXPAND_ARRAY, op.evtchnExpandArray, { array_gfn: 2 }).result, 0);
});

test('reset: of another domain only by a privileged one, and only while that domain is paused', () => {
  const { xen, zero, one, two } = machine();
  allocate(one, DOMID_SELF, two.id);
  assert.equal(reset(two, one.id), EPERM);
  assert.equal(reset(zero, 99), ESRCH);
  assert.equal(reset(zero, one.id), EINVAL);
  assert.deepEqual(status(one, DOMID_SELF, 1), [1, 0, two.id, 0]);
  xen.domains.pause(one.record);
  assert.equal(reset(zero, one.id), 0);
  assert.deepEqual(status(one, DOMID_SELF, 1), [0, 0, 0, 0]);
  // Xen's own operation to go on with a reset finds none to go on with.
  assert.equal(call(one, op.EVTCHNOP_RESET_CONT, op.evtchnReset, { dom: DOMID_SELF }).result, EBUSY);
});

test('an unknown operation is ENOSYS, and an argument where the caller has no memory is EFAULT', () => {
  const { one, all } = machine();
  const before = eventState(all);
  for (const command of [15, -1, 0x7fff_ffff])
    assert.equal(one.ports.eventChannelOp(command, ARGUMENT), ENOSYS);
  for (let command = 0; command <= op.EVTCHNOP_RESET_CONT; command++)
    for (const address of [NOWHERE, 2 ** 45, one.record.ramFrames * 4096 - 1])
      assert.equal(one.ports.eventChannelOp(command, address), EFAULT);
  assert.deepEqual(eventState(all), before);
});
