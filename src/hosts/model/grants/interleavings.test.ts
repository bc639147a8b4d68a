// Every interleaving of every access to shared memory, in small scopes: two processors of a backend map, unmap and
// copy what a guest grants, while the guest's kernel ends access, grants anew, and switches the version of its table.
// docs/exploring.md says how this works, and how to see a failing one again.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GNTST_BAD_GNTREF, GNTST_BAD_HANDLE, GNTST_OKAY } from '../../../abi/grant.ts';
import { explain } from '../../../explore/scenario.ts';
import {
  A,
  B,
  copy,
  content,
  explorable,
  FAR,
  type GrantScope,
  loadXen,
  map,
  READONLY,
  READWRITE,
  regrantA,
  revoke,
  setVersion,
  unmap,
} from './interleavings.test.helper.ts';

const xen = await loadXen();

const scopes: [string, GrantScope][] = [
  [
    '10 G12 H6: two processors map and unmap one reference while its owner ends access',
    {
      processors: [
        [map(A, READWRITE), unmap()],
        [map(A, READONLY), unmap()],
      ],
      kernel: [revoke(A)],
    },
  ],
  [
    '10 G12 H6: the same with a table of version 2',
    {
      processors: [
        [map(A, READWRITE), unmap()],
        [map(A, READONLY), unmap()],
      ],
      kernel: [revoke(A)],
      version: 2,
    },
  ],
  [
    'H3 H21: two processors map and unmap two references, crosswise',
    {
      processors: [
        [map(A, READWRITE), unmap(), map(B, READWRITE)],
        [map(B, READONLY), unmap(), map(A, READONLY)],
      ],
    },
  ],
  [
    '10: each of two references is mapped by one processor while the owner ends access to both',
    {
      processors: [
        [map(A, READWRITE), unmap()],
        [map(B, READWRITE), unmap()],
      ],
      kernel: [revoke(A), revoke(B)],
    },
  ],
  [
    'H3: a handle that two processors unmap ends one mapping once, and keeps the one that comes after it',
    {
      mapped: [[A, READWRITE]],
      processors: [[unmap(), map(A, READWRITE)], [unmap(0)]],
      check: ([[own, mapped], [others]]) => {
        assert.deepEqual([own, others].sort(), [GNTST_OKAY, GNTST_BAD_HANDLE].sort());
        assert.equal(mapped, GNTST_OKAY);
      },
    },
  ],
  [
    'H8: a switch to version 2 while two processors map, one of them what version 2 has no room for',
    {
      processors: [[map(A, READWRITE), unmap()], [map(FAR, READONLY)]],
      kernel: [setVersion(2)],
      check: ([, [far]]) => assert.ok([GNTST_OKAY, GNTST_BAD_GNTREF].includes(far), `map answers ${far}`),
    },
  ],
  [
    'H6 H8: two references, mapped and unmapped by two processors; one ends, then the version is switched',
    {
      processors: [
        [map(A, READWRITE), unmap()],
        [map(B, READONLY), unmap()],
      ],
      kernel: [revoke(A), setVersion(2)],
    },
  ],
  [
    'H9: a switch back to version 1 while one processor maps, and the other copies from a part of a page',
    {
      version: 2,
      processors: [[map(A, READONLY)], [copy(B)]],
      kernel: [setVersion(1)],
    },
  ],
  [
    'H11: a copy brings what was granted before or after, while the owner grants another page',
    {
      processors: [[copy(A)], [map(A, READONLY), unmap()]],
      kernel: [revoke(A), regrantA()],
      check: ([[copied]]) =>
        assert.ok(copied < 0 || copied === content(1) || copied === content(0), `${copied}`),
    },
  ],
];

for (const [title, scope] of scopes) {
  test(title, async (t) => {
    const stage = explorable(xen, scope);
    const { failure, complete, runs, states, orders } = await stage.explore();
    t.diagnostic(`${orders.toPrecision(3)} orders, ${states} states, ${runs} runs`);
    assert.equal(
      failure,
      undefined,
      failure && `${stage.trace(failure.schedule).join('\n')}\n${explain(failure)}`,
    );
    assert.ok(complete);
  });
}
