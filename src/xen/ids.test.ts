import assert from 'node:assert/strict';
import { test } from 'node:test';
import { domainId } from './ids.ts';

test('L6: a domain id is a whole number below the reserved ones, and nothing else', () => {
  for (const id of [0, 1, 0x7fef]) assert.equal(domainId(id), id);
  for (const id of [-1, 0.5, 0x7ff0, 0x7ff4, 0x7fff, 0xffff, 0x10001, Number.NaN])
    assert.throws(() => domainId(id), RangeError, `${id}`);
});
