import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isQuitting, leave, quitAll, quitWords } from './thread-exit.ts';

test('all threads are told to leave, and all have left when they say so', () => {
  const words = quitWords(3);
  assert.equal(isQuitting(words), false);
  leave(words);
  const wake = (): void => {
    assert.ok(isQuitting(words), 'whoever is woken sees it');
    leave(words);
    leave(words);
  };
  assert.equal(quitAll(words, wake, 60_000), true);
});

test('a thread that never leaves is not waited for for ever', () => {
  const words = quitWords(2);
  assert.equal(
    quitAll(words, () => leave(words), 5),
    false,
  );
});
