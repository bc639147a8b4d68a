import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Exhibit, isNamed } from './exhibit.ts';
import type { TestRun } from './test-run.ts';
import { faultOf, judge } from './verdict.ts';

const exhibit: Exhibit = {
  id: 'XSA-1/form',
  also: ['XSA-2'],
  what: 'Something was wrong.',
  file: 'src/some.ts',
  find: 'right',
  replace: 'wrong',
  tests: ['src/some.test.ts'],
};

const passing: TestRun = { passed: 3, failures: [], crashed: false, hung: false };

function failing(title: string, error: Error): TestRun {
  return { ...passing, failures: [{ title, errors: [error] }] };
}

test('a test that fails by an assertion has caught the defect', () => {
  const run = failing('the test', new assert.AssertionError({ message: 'no' }));
  const named = failing('the test', Object.assign(new Error('no'), { name: 'AssertionError' }));
  for (const each of [run, named])
    assert.deepEqual(judge(exhibit, { ...each, passed: 0 }), { outcome: 'caught', by: 'the test' });
});

test('an exception has caught it only if the exhibit announces it', () => {
  const run = failing('the test', new RangeError('offset 7 is out of bounds'));
  assert.equal(judge(exhibit, run).outcome, 'crashed');
  assert.equal(judge({ ...exhibit, error: 'out of bounds' }, run).outcome, 'caught');
  assert.equal(judge({ ...exhibit, error: 'something else' }, run).outcome, 'crashed');
});

test('a hang has caught it only if the exhibit announces it', () => {
  const run = { ...passing, hung: true };
  assert.equal(judge(exhibit, run).outcome, 'crashed');
  assert.equal(judge({ ...exhibit, hangs: true }, run).outcome, 'caught');
});

test('tests that pass let it escape; no test at all, or a file that does not load, prove nothing', () => {
  assert.equal(judge(exhibit, passing).outcome, 'escaped');
  assert.equal(judge(exhibit, { ...passing, passed: 0 }).outcome, 'crashed');
  assert.equal(judge(exhibit, { ...passing, crashed: true }).outcome, 'crashed');
});

test('tests that fail on the sound code are broken', () => {
  assert.equal(faultOf(passing), undefined);
  for (const run of [
    failing('the test', new assert.AssertionError({ message: 'no' })),
    { ...passing, crashed: true },
    { ...passing, hung: true },
  ])
    assert.equal(faultOf(run)?.outcome, 'broken');
});

test('an exhibit is found by its id, its advisory, and its other names', () => {
  for (const name of ['XSA-1', 'XSA-1/form', 'XSA-2']) assert.ok(isNamed(exhibit, name), name);
  for (const name of ['XSA', 'XSA-1/', 'form']) assert.ok(!isNamed(exhibit, name), name);
});
