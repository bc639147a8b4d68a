import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AssertionError, assert as invariant, ProtocolViolation } from './errors.ts';

test('a protocol violation names what was found and the rule, and is told apart by its clause', () => {
  const violation = new ProtocolViolation('§2.7.5', 'descriptor 9 of a table of 4');
  assert.equal(violation.message, 'descriptor 9 of a table of 4 (§2.7.5)');
  assert.deepEqual([violation.name, violation.clause], ['ProtocolViolation', '§2.7.5']);
  assert.ok(violation instanceof Error && !(violation instanceof AssertionError));
});

test('an assertion that holds does nothing; one that fails says what it got and expected', () => {
  invariant(true, 'never seen');
  const message = (figures: number[]) => {
    try {
      invariant(false, 'bytes to map', ...figures);
    } catch (error) {
      return error instanceof AssertionError ? error.message : 'another error';
    }
    return 'no error';
  };
  assert.equal(message([]), 'bytes to map');
  assert.equal(message([0]), 'bytes to map, got 0');
  assert.equal(message([5, 4]), 'bytes to map, got 5, expected 4');
});
