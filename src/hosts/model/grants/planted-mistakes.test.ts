// What the search of interleavings.test.ts is worth: mistakes that Xen once had are planted in the sources, and each is
// found and made short. The test of a mistake fails when the search no longer finds it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Patch } from '../../../../test/support/stepped/load.ts';
import { replay } from '../../../explore/explore.ts';
import { explain, switches } from '../../../explore/scenario.ts';
import { shrink } from '../../../explore/shrink.ts';
import { parseSchedule } from '../../../machine/schedule.ts';
import {
  A,
  explorable,
  type GrantScope,
  loadXen,
  map,
  READONLY,
  READWRITE,
  revoke,
  unmap,
} from './interleavings.test.helper.ts';

const MAPPING = 'src/hosts/model/grants/mapping.ts';
const SHARED_ENTRY = 'src/hosts/model/grants/shared-entry.ts';
const SHRINKING_RUNS = 1500;

interface Mistake {
  readonly patches: readonly Patch[];
  readonly scope: GrantScope;
  readonly found: RegExp;
  /** Changes from one to another that the shortest failing run needs. */
  readonly switches: number;
}

const mistakes: [string, Mistake][] = [
  [
    'XSA-218: an unmap counts the pin down before the page has gone from the address space',
    {
      patches: [
        {
          file: MAPPING,
          from: '      const status = this.#displace(mapper, op, frame);',
          to: '      op.done = host;\n      this.#count(op, active);\n      const status = this.#displace(mapper, op, frame);',
        },
        { file: MAPPING, from: '    if (op.done !== 0) this.#count(op, active);\n', to: '' },
      ],
      scope: { mapped: [[A, READWRITE]], processors: [[unmap()]], kernel: [revoke(A)] },
      found: /H6: the page of reference 8 is mapped, but its marks are clear/,
      switches: 0,
    },
  ],
  [
    'XSA-218: an unmap believes what it saw of the handle before it had the lock',
    {
      patches: [
        { file: MAPPING, from: '  ref = 0;\n}', to: '  ref = 0;\n  seen = 0;\n}' },
        {
          file: MAPPING,
          from: '    op.done = 0;\n    if (mappingFlags',
          to: '    op.done = 0;\n    op.seen = mappingFlags(this.#heap, mapper, op.handle);\n    if (mappingFlags',
        },
        {
          file: MAPPING,
          from: `    let flags = mappingFlags(heap, mapper, op.handle);
    if (
      flags === 0 ||
      mappingOwner(heap, mapper, op.handle) !== op.owner!.id ||
      mappingRef(heap, mapper, op.handle) !== op.ref
    )
      return GNTST_BAD_HANDLE;`,
          to: '    let flags = op.seen;',
        },
      ],
      scope: { mapped: [[A, READWRITE]], processors: [[unmap(), map(A, READWRITE)], [unmap(0)]] },
      found: /4: pins of reference 8|5: handle|4: pages/,
      switches: 2,
    },
  ],
  [
    'H6: the marks of an entry are cleared before its pin is counted down',
    {
      patches: [
        {
          file: MAPPING,
          from: `    this.#heap[active + ACTIVE_PINS] = left;
    this.#shared.reduce(owner, ref, left, readonly);`,
          to: `    this.#shared.reduce(owner, ref, left, readonly);
    this.#heap[active + ACTIVE_PINS] = left;`,
        },
      ],
      scope: { mapped: [[A, READONLY]], processors: [[unmap()]], kernel: [revoke(A)] },
      found: /3: reference 8 is pinned, but not marked as being read/,
      switches: 0,
    },
  ],
  [
    'XSA-396: a map with version 2 does not look at the flags again once it has set the marks',
    {
      patches: [
        {
          file: SHARED_ENTRY,
          from: '    if (!refuses(Atomics.load(this.#words, word))) return GNTST_OKAY;',
          to: '    return GNTST_OKAY;',
        },
      ],
      scope: { version: 2, processors: [[map(A, READWRITE)]], kernel: [revoke(A)] },
      found: /10: reference 8 is pinned after access was ended/,
      switches: 2,
    },
  ],
];

for (const [title, mistake] of mistakes) {
  test(title, async (t) => {
    const stage = explorable(await loadXen(mistake.patches), mistake.scope);
    const { failure, runs } = await stage.explore();
    assert.ok(failure, `not found in ${runs} runs`);
    assert.match(String(failure.error), mistake.found);
    const shrunk = await shrink(stage.scenario, failure.schedule, SHRINKING_RUNS);
    t.diagnostic(`found after ${runs} runs, shrunk in ${shrunk.runs}: ${explain(shrunk.failure)}`);
    assert.equal(switches(parseSchedule(shrunk.failure.schedule)), mistake.switches);
    const again = await replay(stage.scenario, shrunk.failure.schedule);
    assert.equal(String(again?.error), String(shrunk.failure.error));
    assert.equal(again?.schedule, shrunk.failure.schedule);
  });
}
