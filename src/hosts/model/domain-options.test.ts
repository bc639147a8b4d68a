// What domains can be made with: kinds, architectures and limits, and where things stand in their address spaces.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  addressMap,
  type Architecture,
  type DomainKind,
  GRANT_TABLE_ROOM,
  GRANT_WINDOW,
} from './address-map.ts';
import { checkedOptions } from './domain-options.ts';
import { addDomain, bootTestMachine, TEST_PAGES } from './domains.test.helper.ts';
import { PHYSMAP_FRAMES } from './physmap.ts';

const PAGE = 4096;
const ARCHITECTURES: readonly Architecture[] = ['x86', 'arm'];

test('limits that are not given are Xen’s defaults, and only domain 0 is privileged', () => {
  const defaults = {
    memory: PAGE,
    kind: 'pvh',
    architecture: 'x86',
    vcpus: 1,
    maxGrantFrames: 64,
    maxMaptrackFrames: 1024,
    maxGrantVersion: 2,
    maxEventChannels: 1023,
  };
  assert.deepEqual(checkedOptions(1, { memory: PAGE }), { ...defaults, privileged: false });
  assert.deepEqual(checkedOptions(0, { memory: PAGE }), {
    ...defaults,
    maxEventChannels: 2 ** 17 - 1,
    privileged: true,
  });
  assert.equal(checkedOptions(5, { memory: PAGE, privileged: true }).privileged, true);
});

test('on Arm there is no version 2 of grant tables (XSA-268), and no domain but of type pvh', () => {
  const arm = { memory: PAGE, architecture: 'arm' } as const;
  assert.equal(checkedOptions(1, arm).maxGrantVersion, 1);
  assert.throws(
    () => checkedOptions(1, { ...arm, maxGrantVersion: 2 }),
    /max_grant_version of 2; expected 1 to 1/,
  );
  for (const kind of ['pv', 'hvm'] as const)
    assert.throws(() => checkedOptions(1, { ...arm, kind }), /on Arm of type .*: only pvh/);
});

for (const [what, options, message] of [
  ['no processor', { vcpus: 0 }, /0 vcpus; expected 1 to 8/],
  ['nine processors', { vcpus: 9 }, /9 vcpus; expected 1 to 8/],
  ['version 0', { maxGrantVersion: 0 }, /max_grant_version of 0; expected 1 to 2/],
  ['version 3', { maxGrantVersion: 3 }, /max_grant_version of 3; expected 1 to 2/],
  [
    'more memory than its address map has room for',
    { memory: 0xd000_1000 },
    /memory of 3489665024 bytes; expected/,
  ],
] as const) {
  test(`a domain with ${what} is refused, with what is expected`, () => {
    assert.throws(() => checkedOptions(1, { memory: PAGE, ...options }), { name: 'RangeError', message });
  });
}

for (const architecture of ARCHITECTURES) {
  test(`${architecture}: memory, special pages, grant table and window stand apart, inside the address space`, () => {
    const map = addressMap(architecture);
    const ranges = [
      ['memory', map.ram, map.ram + map.ramBytes / PAGE],
      ['console', map.console, map.console + 1],
      ['xenstore', map.xenstore, map.xenstore + 1],
      ['grant table', map.grantTable, map.grantTable + (architecture === 'arm' ? 0x1000 : GRANT_TABLE_ROOM)],
      ['grant statuses', map.grantStatus, map.grantStatus + 1],
      ['virtio-mmio', map.virtioMmio / PAGE, map.virtioMmio / PAGE + 0x100],
    ] as const;
    const sorted = ranges.toSorted((a, b) => a[1] - b[1]);
    for (const [index, [name, first, end]] of sorted.entries()) {
      assert.ok(end <= (sorted[index + 1]?.[1] ?? PHYSMAP_FRAMES), `${name} ends before the next begins`);
      assert.ok(first >= 0);
    }
    assert.ok(GRANT_WINDOW < PHYSMAP_FRAMES);
  });
}

for (const [kind, architecture] of [
  ['pv', 'x86'],
  ['hvm', 'x86'],
  ['pvh', 'x86'],
  ['pvh', 'arm'],
] as [DomainKind, Architecture][]) {
  test(`a ${kind} domain on ${architecture} has its memory, console and xenstore pages where its map says`, () => {
    const { record } = addDomain(bootTestMachine(), 3, { kind, architecture, vcpus: 2 });
    const { map } = record;
    const found = [...record.physmap.entries()].map(({ gfn }) => gfn);
    for (const gfn of [map.ram, map.ram + TEST_PAGES - 1, map.console, map.xenstore, map.grantTable])
      assert.ok(found.includes(gfn), `frame number 0x${gfn.toString(16)}`);
    assert.equal(found.length, TEST_PAGES + 3);
    assert.deepEqual(
      [record.kind, record.architecture, record.translated, record.hasCacheFlush, record.vcpus],
      [kind, architecture, kind !== 'pv', architecture === 'arm', 2],
    );
  });

  test(`a ${kind} domain on ${architecture} owns its frames by the numbers that it knows them by`, () => {
    const { record } = addDomain(bootTestMachine(), 3, { kind, architecture });
    const first = kind === 'pv' ? record.ramFrame : record.map.ram;
    assert.equal(record.ownFrame(first), record.ramFrame);
    assert.equal(record.ownFrame(first + TEST_PAGES - 1), record.ramFrame + TEST_PAGES - 1);
    for (const wrong of [first - 1, 0xffff_ffff, 2 ** 52, -1]) assert.equal(record.ownFrame(wrong), 0);
  });
}

test('a PV domain does not own the frames of its neighbours', () => {
  const xen = bootTestMachine();
  const neighbour = addDomain(xen, 1, { kind: 'pv' });
  const { record } = addDomain(xen, 2, { kind: 'pv' });
  for (const frame of [
    neighbour.record.ramFrame,
    neighbour.record.consoleFrame,
    neighbour.record.grantFrame(0),
    0,
  ])
    assert.equal(record.ownFrame(frame), 0);
});
