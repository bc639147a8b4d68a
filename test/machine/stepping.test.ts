// The search over stepped code: what it leaves out makes no difference, what it cannot know it refuses, and stepped
// sources do what the sources do.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { exploreAll, replay } from '../../src/explore/explore.ts';
import { access, now, type Steps } from '../support/stepped/access.ts';
import { loadStepped, steps } from '../support/stepped/load.ts';
import { Explorable } from '../support/stepped/scope.ts';

/** What a random actor does to word `word`; `locked` is a list of such with a lock held. */
type Act =
  | { readonly kind: 'get' | 'put' | 'add' | 'exchange' | 'count'; readonly word: number }
  | { readonly kind: 'locked'; readonly lock: number; readonly acts: readonly Act[] };

const WORDS = 3;
const LOCKS = 2;

const plainAct = fc.record({
  kind: fc.constantFrom(
    'get' as const,
    'put' as const,
    'add' as const,
    'exchange' as const,
    'count' as const,
  ),
  word: fc.nat(WORDS - 1),
});
const lockedAct = fc.record({
  kind: fc.constant('locked' as const),
  lock: fc.nat(LOCKS - 1).map((lock) => WORDS + lock),
  acts: fc.array(plainAct, { minLength: 1, maxLength: 2 }),
});
const program = fc.array(fc.oneof(plainAct, lockedAct), { minLength: 1, maxLength: 3 });

/** Acts, and returns a number that follows from all that was read. */
function* acting(memory: Int32Array, acts: readonly Act[], start: number): Steps<number> {
  let read = start;
  for (const act of acts) {
    if (act.kind === 'locked') {
      while ((yield access('', 'Atomics.compareExchange', memory, act.lock, 0, 1)) !== 0)
        yield access('', 'Atomics.wait', memory, act.lock, 1);
      read = yield* acting(memory, act.acts, read);
      yield access('', 'Atomics.store', memory, act.lock, 0);
    } else if (act.kind === 'get')
      read = (read * 31 + ((yield access('', 'get', memory, act.word)) as number)) | 0;
    else if (act.kind === 'count') yield access('', 'blind.add', memory, act.word, read);
    else if (act.kind === 'put') yield access('', 'put', memory, act.word, read);
    else {
      const old = (yield access('', `Atomics.${act.kind}`, memory, act.word, read)) as number;
      read = (read * 31 + old) | 0;
    }
  }
  return read;
}

/** What can come of the programs, and what an observer of two words can see meanwhile. */
function outcomes(programs: readonly (readonly Act[])[]) {
  const ends = new Set<string>();
  const sights = new Set<string>();
  const memory = new Int32Array(WORDS + LOCKS);
  const see = (word: number) => now('', 'get', memory, word);
  const explorable = new Explorable({
    buffers: [memory.buffer],
    start: () => ({
      actors: programs.map((acts, index) => acting(memory, acts, index + 1)),
      always: () => void sights.add(`${see(0)} ${see(1)}`),
      end: (results) => void ends.add(`${results};${memory}`),
    }),
  });
  return { explorable, ends, sights };
}

test('leaving out what nobody can notice leaves out no outcome, and nothing that an observer can see', async () => {
  let [allRuns, fewRuns] = [0, 0];
  await fc.assert(
    fc.asyncProperty(fc.array(program, { minLength: 2, maxLength: 3 }), async (programs) => {
      const all = outcomes(programs);
      const few = outcomes(programs);
      allRuns += (await exploreAll(all.explorable.scenario)).runs;
      const found = await few.explorable.explore();
      assert.ok(found.complete);
      fewRuns += found.runs;
      assert.deepEqual([...few.ends].sort(), [...all.ends].sort());
      assert.deepEqual([...few.sights].sort(), [...all.sights].sort());
    }),
    { seed: 7, numRuns: 60 },
  );
  assert.ok(fewRuns < allRuns, `${fewRuns} runs for ${allRuns}`);
});

/** Two actors that take two locks in opposite order. */
const crossed: readonly Act[][] = [3, 4].map((lock) => [
  { kind: 'locked', lock, acts: [{ kind: 'locked', lock: 7 - lock, acts: [] }] },
]);

test('actors that wait for each other are a failure, which its schedule repeats', async () => {
  const { explorable } = outcomes(crossed);
  const { failure } = await explorable.explore();
  assert.match(String(failure?.error), /deadlock/);
  assert.match(String((await replay(explorable.scenario, failure?.schedule ?? ''))?.error), /deadlock/);
});

test('stepped sources do what the sources do, an access at a time', async () => {
  const locks = await loadStepped<typeof import('../../src/hosts/model/lock.ts')>('src/hosts/model/lock.ts');
  const heap = new Int32Array(4);
  locks.lock(heap, 2);
  assert.deepEqual([...heap], [0, 0, 1, 0]);
  locks.unlock(heap, 2);
  const taking = steps(locks).lock(heap, 2);
  const { site, kind, operands } = taking.next().value as ReturnType<typeof access>;
  assert.deepEqual([kind, operands], ['Atomics.compareExchange', [2, 0, 1]]);
  assert.match(site, /^src\/hosts\/model\/lock\.ts:\d+$/);
  assert.equal((taking.next(1).value as ReturnType<typeof access>).kind, 'Atomics.wait', 'without spinning');
  assert.equal((taking.next('not-equal').value as ReturnType<typeof access>).kind, 'Atomics.compareExchange');
  assert.equal(taking.next(0).done, true);
  assert.deepEqual([...heap], [0, 0, 0, 0], 'steps leave the accesses to their driver');
});

test('a patch that does not fit exactly once is refused', async () => {
  const file = 'src/hosts/model/lock.ts';
  for (const from of ['no such words', 'heap'])
    await assert.rejects(
      loadStepped(file, [{ file, from, to: '' }]),
      /lock\.ts: what a patch replaces .* not once/,
    );
});

for (const [what, kind, message] of [
  ['writes shared memory', 'put', /writes shared memory in code that is not stepped/],
  ['reads what another writes', 'get', /reads, in code that is not stepped, what another actor writes/],
] as const) {
  test(`code that is not stepped and ${what} is refused`, async () => {
    const memory = new Int32Array(2);
    function* secret(): Steps<void> {
      yield access('', 'get', memory, 1);
      now('here', kind, memory, 0, 1);
    }
    const explorable = new Explorable({
      buffers: [memory.buffer],
      start: () => ({ actors: [secret(), acting(memory, [{ kind: 'put', word: 0 }], 1)] }),
    });
    assert.match(String((await explorable.explore()).failure?.error), message);
  });
}
