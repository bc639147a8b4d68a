// HVM parameters: who may read and set which, on both architectures, and what setting one brings about.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as hvm from '../../../abi/hvm-params.ts';
import type { DomainOptions } from '../domain-options.ts';
import { addDomain, bootTestMachine, type TestDomain } from '../domains.test.helper.ts';
import { SHUTDOWN_CRASH } from '../domains.ts';
import { EEXIST, EFAULT, EINVAL, ENODEV, ENOSYS, EPERM, ESRCH } from '../errno.ts';

const ARGUMENT = 0x5000;
const DOMID_SELF = 0x7ff0;

function call(caller: TestDomain, command: number, domid: number, index: number, value = 0n) {
  const { ports, record } = caller;
  const address = record.map.ram * 4096 + ARGUMENT;
  ports.addressSpace.write(address, hvm.xenHvmParam.make({ domid, index, value }).bytes);
  const result = ports.hvmOp(command, address);
  return {
    result,
    value: hvm.xenHvmParam.over(ports.addressSpace.read(address, hvm.xenHvmParam.size)).value,
  };
}

const set = (caller: TestDomain, domid: number, index: number, value: bigint) =>
  call(caller, hvm.HVMOP_set_param, domid, index, value).result;
const get = (caller: TestDomain, domid: number, index: number) =>
  call(caller, hvm.HVMOP_get_param, domid, index);

function scene(options: Partial<DomainOptions> = {}) {
  const xen = bootTestMachine();
  const toolstack = addDomain(xen, 1, { privileged: true });
  return { xen, toolstack, guest: addDomain(xen, 2, { kind: 'hvm', ...options }) };
}

for (const architecture of ['x86', 'arm'] as const) {
  test(`${architecture}: a guest finds the pages of its store and console where its address map says`, () => {
    const { guest } = scene({ architecture, kind: 'pvh' });
    const { map } = guest.record;
    const store = get(guest, DOMID_SELF, hvm.HVM_PARAM_STORE_PFN);
    assert.deepEqual(store, { result: 0, value: BigInt(map.xenstore) });
    const console = get(guest, guest.id, hvm.HVM_PARAM_CONSOLE_PFN);
    assert.deepEqual(console, { result: 0, value: BigInt(map.console) });
    assert.equal(guest.record.storePage, map.xenstore);
  });
}

test('a PV guest has no parameters: its store page is a machine frame, as in its start_info', () => {
  const { xen, toolstack } = scene();
  const pv = addDomain(xen, 3, { kind: 'pv' });
  assert.equal(get(toolstack, pv.id, hvm.HVM_PARAM_STORE_PFN).result, EINVAL);
  assert.equal(pv.record.storePage, pv.record.xenstoreFrame);
  assert.equal(pv.record.consolePage, pv.record.consoleFrame);
});

/** Every parameter of x86: what its own guest gets for setting it to 0 and for reading it. */
const own: [name: string, indices: number[], setResult: number, getResult: number][] = [
  ['those of a guest', [0, 2, 15, 18, 34, 36], 0, 0],
  ['those that it only reads', [1, 17], EPERM, 0],
  ['altp2m', [35], EEXIST, 0],
  ['those that were', [4, 13, 20, 21, 22, 23, 24, 25, 26, 30], EINVAL, EINVAL],
  ['the toolstack’s', [3, 5, 6, 9, 10, 11, 12, 14, 16, 27, 28, 29, 31, 32, 33, 38], EPERM, EPERM],
  ['those that are none', [39, 40, 2 ** 32 - 1], EINVAL, EINVAL],
];

for (const [name, indices, setResult, getResult] of own) {
  test(`x86: a guest that sets and reads ${name}: ${setResult} and ${getResult}`, () => {
    const { guest } = scene();
    for (const index of indices) {
      assert.equal(set(guest, DOMID_SELF, index, 0n), setResult, `set ${index}`);
      assert.equal(get(guest, DOMID_SELF, index).result, getResult, `get ${index}`);
    }
  });
}

test('Arm: six parameters exist; the toolstack sets them, the guest reads five', () => {
  const { toolstack, guest } = scene({ architecture: 'arm', kind: 'pvh' });
  for (let index = 0; index < 50; index++) {
    const exists = [0, 1, 2, 17, 18, 28].includes(index);
    assert.equal(set(guest, guest.id, index, 1n), exists ? EPERM : EINVAL);
    assert.equal(set(toolstack, guest.id, index, BigInt(index)), exists ? 0 : EINVAL);
    const expected = index === 28 ? EPERM : exists ? 0 : EINVAL;
    assert.equal(get(guest, guest.id, index).result, expected);
    assert.equal(get(toolstack, guest.id, index).result, exists ? 0 : EINVAL);
  }
  assert.equal(get(guest, guest.id, 18).value, 18n);
});

test('other domains than the toolstack and the device model are refused, and what exists not is told apart', () => {
  const { xen, guest } = scene();
  const stranger = addDomain(xen, 3);
  assert.equal(get(stranger, guest.id, 1).result, EPERM);
  assert.equal(set(stranger, guest.id, 2, 1n), EPERM);
  assert.equal(get(stranger, 77, 1).result, ESRCH);
  assert.equal(get(stranger, 77, 39).result, EINVAL);
  xen.nameDeviceModel(guest.id, stranger.id);
  assert.equal(set(stranger, guest.id, 5, 9n), 0);
  assert.equal(stranger.ports.hvmOp(hvm.HVMOP_get_param, 2 ** 40), EFAULT);
  assert.equal(stranger.ports.hvmOp(2, 0), ENOSYS);
});

test('values have all 64 bits, those that are set once stay, and a refused one changes nothing', () => {
  const { toolstack, guest } = scene();
  const all = 2n ** 64n - 1n;
  assert.equal(set(guest, DOMID_SELF, hvm.HVM_PARAM_CALLBACK_IRQ, all), 0);
  assert.equal(get(guest, DOMID_SELF, hvm.HVM_PARAM_CALLBACK_IRQ).value, all);
  for (const index of [5, 6, 32]) {
    assert.equal(set(toolstack, guest.id, index, 0n), 0);
    assert.equal(set(toolstack, guest.id, index, 7n), 0);
    assert.equal(set(toolstack, guest.id, index, 7n), 0);
    assert.equal(set(toolstack, guest.id, index, 8n), EEXIST);
    assert.equal(get(toolstack, guest.id, index).value, 7n);
  }
});

const values: [index: number, value: bigint, result: number][] = [
  [hvm.HVM_PARAM_TIMER_MODE, 3n, 0],
  [hvm.HVM_PARAM_TIMER_MODE, 4n, EINVAL],
  [hvm.HVM_PARAM_VIRIDIAN, 1n, ENODEV],
  [hvm.HVM_PARAM_ACPI_S_STATE, 3n, 0],
  [hvm.HVM_PARAM_ACPI_S_STATE, 1n, EINVAL],
  [hvm.HVM_PARAM_ACPI_IOPORTS_LOCATION, 1n, 0],
  [hvm.HVM_PARAM_ACPI_IOPORTS_LOCATION, 2n, EINVAL],
  [hvm.HVM_PARAM_TRIPLE_FAULT_REASON, 5n, 0],
  [hvm.HVM_PARAM_TRIPLE_FAULT_REASON, 6n, EINVAL],
  [hvm.HVM_PARAM_NR_IOREQ_SERVER_PAGES, 0n, EINVAL],
  [hvm.HVM_PARAM_NR_IOREQ_SERVER_PAGES, 64n, 0],
  [hvm.HVM_PARAM_NR_IOREQ_SERVER_PAGES, 65n, EINVAL],
  [hvm.HVM_PARAM_X87_FIP_WIDTH, 4n, 0],
  [hvm.HVM_PARAM_X87_FIP_WIDTH, 5n, EINVAL],
  [hvm.HVM_PARAM_MCA_CAP, 1n, EINVAL],
];

for (const [index, value, result] of values) {
  test(`x86: the toolstack sets parameter ${index} to ${value}: ${result}`, () => {
    const { toolstack, guest } = scene();
    const before = get(toolstack, guest.id, index).value;
    assert.equal(set(toolstack, guest.id, index, value), result);
    assert.equal(get(toolstack, guest.id, index).value, result === 0 ? value : before);
  });
}

test('a task state segment that no processor could use ends the guest that sets it, not one for which others do', () => {
  const { toolstack, guest } = scene();
  assert.equal(set(toolstack, guest.id, hvm.HVM_PARAM_VM86_TSS_SIZED, 103n << 32n), EINVAL);
  assert.equal(guest.record.shutdownCode, -1);
  assert.equal(set(guest, guest.id, hvm.HVM_PARAM_VM86_TSS, 0x8000n), 0);
  assert.equal(get(guest, guest.id, hvm.HVM_PARAM_VM86_TSS).value, 0x8000n);
  assert.equal(get(guest, guest.id, hvm.HVM_PARAM_VM86_TSS_SIZED).value, (128n << 32n) | 0x8000n);
  assert.equal(set(guest, guest.id, hvm.HVM_PARAM_VM86_TSS_SIZED, (2n ** 63n) | 0x9000n), 0);
  assert.equal(get(guest, guest.id, hvm.HVM_PARAM_VM86_TSS_SIZED).value >> 32n, 8329n);
  assert.equal(set(guest, guest.id, hvm.HVM_PARAM_VM86_TSS, 1n << 32n), EINVAL);
  assert.equal(guest.record.shutdownCode, SHUTDOWN_CRASH);
});
