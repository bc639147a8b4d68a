// The device tree compiler is the reference for both forms: what it compiles must be what we compile, and it
// must read what we write.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import fc from 'fast-check';
import { readBlob } from '../../src/toolstack/device-tree/blob-reader.ts';
import { writeBlob } from '../../src/toolstack/device-tree/blob-writer.ts';
import { guestTree, virtioMmioSlot } from '../../src/toolstack/device-tree/guest-tree.ts';
import { readSource } from '../../src/toolstack/device-tree/source-reader.ts';
import { writeSource } from '../../src/toolstack/device-tree/source-writer.ts';
import type { DeviceTree } from '../../src/toolstack/device-tree/tree.ts';
import { domainId } from '../../src/xen/ids.ts';
import { deviceTree } from '../generators/device-tree.ts';

/** What dtc makes of `input`; an error if dtc is missing or refuses it. */
function dtc(from: 'dts' | 'dtb', to: 'dts' | 'dtb', input: string | Uint8Array): Buffer {
  const run = spawnSync('dtc', ['-q', '-I', from, '-O', to, '-'], { input, maxBuffer: 1 << 26 });
  if (run.error)
    throw new Error(
      'these tests need dtc, the device tree compiler (Debian: apt install device-tree-compiler)',
      {
        cause: run.error,
      },
    );
  assert.equal(
    run.status,
    0,
    `dtc refuses what we wrote: ${run.stderr}\n${typeof input === 'string' ? input : ''}`,
  );
  return run.stdout;
}

/** The source that our writer gives for a blob: one form in which trees can be compared. */
function shown(blob: Uint8Array): string {
  const { tree, findings } = readBlob(blob, 'blob');
  assert.deepEqual(findings, []);
  return writeSource(tree!);
}

function parsed(source: string): DeviceTree {
  const { tree, findings } = readSource(source, 'source');
  assert.deepEqual(findings, []);
  return tree!;
}

const SOURCES: readonly [what: string, source: string][] = [
  ['the smallest tree', '/dts-v1/; / { };'],
  [
    'reservations and labels',
    '/dts-v1/; /memreserve/ 0x1000 (1 << 12); / { p: a = l2: <1 l3: 2>; b: c { }; };',
  ],
  [
    'values of all kinds',
    `/dts-v1/; / {
      strings = "a", "b\\n\\t\\"\\\\\\x41\\101z\\e", "";
      cells = <0 1 0xffffffff 010 'A' '\\n' (-1) 4294967295U 1UL 2ULL>;
      bytes = [00 0102ab CD], [];
      bits = /bits/ 8 <1 2 (-1)>, /bits/ 16 <0x1234>, /bits/ 64 <0x123456789abcdef0>;
      empty; mixed = "s", <1>, [02];
    };`,
  ],
  [
    'expressions',
    `/dts-v1/; / { p = <(1 + 2 * 3) ((1 + 2) * 3) (10 - 4 - 3) (7 / 2) (7 % 4) (1 << 4 | 1) (0xf0 & 0x3c ^ 1)
      (1 < 2 && 2 <= 2) (3 > 2 || 0) (1 == 2) (1 != 2) (!5) (~0xfffffff0) (0 ? 1 : 0 ? 2 : 3) (-1 < 1) (-(1)) (1 ? 2 : 3)>; };`,
  ],
  [
    'references and phandles',
    `/dts-v1/; / { a = <&y &x 7>, <&{/c/d}>; path = &x, &{/c}; c { phandle = <2>; d: d { q; }; };
      x: x { ref = <&d>; }; y: y { linux,phandle = <9>; phandle = <9>; }; };`,
  ],
  [
    'nodes that are merged and deleted',
    `/dts-v1/; / { a: a { p = <1>; q = <2>; s { }; }; b: b { }; e { f { }; }; };
      / { g = "late"; a { r = <3>; t { }; }; };
      &a { p = <4>; /delete-property/ q; u { }; /delete-node/ s; };
      m: &{/e/f} { v; }; / { w = <&m>; };
      /delete-node/ &b;`,
  ],
  ['names of every kind', '/dts-v1/; / { #a-b,c.d+e*f?g = <1>; 0x1; a,b._+-1@0,1f { if; }; };'],
  [
    'comments and line markers',
    '/dts-v1/; // one\n/* two /* \n */ / { a; // three\n };\n# 12 "x.dts" 1\n/ { b; };\n',
  ],
];

for (const [what, source] of SOURCES)
  test(`dtc and we compile the same: ${what}`, () => {
    assert.equal(writeSource(parsed(shown(writeBlob(parsed(source))))), shown(dtc('dts', 'dtb', source)));
  });

test('dtc reads our blobs and sources, and we read its', () => {
  fc.assert(
    fc.property(deviceTree, (tree) => {
      const blob = writeBlob(tree);
      const source = writeSource(tree);
      assert.equal(shown(dtc('dtb', 'dtb', blob)), source);
      assert.equal(shown(dtc('dts', 'dtb', source)), source);
      // Not compared with `source`: dtc 1.6.1 writes "\\0" before a digit and so loses strings.
      const theirs = dtc('dtb', 'dts', blob).toString();
      assert.equal(writeSource(parsed(theirs)), shown(dtc('dts', 'dtb', theirs)));
    }),
    { seed: 32, numRuns: 25 },
  );
});

test('dtc finds nothing wrong with the tree of a guest', () => {
  const tree = guestTree({
    xenVersion: { major: 4, minor: 19 },
    memory: 4096,
    vcpus: 17,
    gic: 'v2',
    addressBits: 40,
    bootargs: 'console=hvc0',
    devices: [
      { ...virtioMmioSlot(0)!, type: undefined, grantsTo: domainId(1) },
      { ...virtioMmioSlot(1)!, type: 'virtio,device22', grantsTo: undefined },
    ],
  });
  assert.equal(shown(dtc('dtb', 'dtb', writeBlob(tree))), writeSource(tree));
  const run = spawnSync('dtc', ['-I', 'dtb', '-O', 'dtb', '-'], { input: writeBlob(tree) });
  assert.equal(run.status, 0);
  const warnings = [...run.stderr.toString().matchAll(/Warning \((\w+)\)/g)].map((match) => match[1]);
  // libxl's own tree has these two as well: `reg` in a node without an address, and no address cells in gpio.
  assert.deepEqual(
    warnings.filter((warning) => !['unit_address_vs_reg', 'interrupt_provider'].includes(warning!)),
    [],
  );
});
