// The command as people start it, on one small exhibit.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { EXHIBITS } from './exhibits.ts';

const program = fileURLToPath(new URL('main.js', import.meta.url));

function museum(...words: string[]) {
  // Without the variable the tests that it runs would take themselves for ours.
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  return spawnSync(process.execPath, [program, ...words], { encoding: 'utf8', env });
}

test('one exhibit is visited, and caught', () => {
  const { status, stdout, stderr } = museum('--json', '--only', 'R3');
  assert.equal(stderr, '');
  assert.equal(status, 0);
  const { exhibits } = JSON.parse(stdout);
  assert.deepEqual(
    exhibits.map(({ id, outcome, file }: Record<string, string>) => [id, outcome, file]),
    [['R3', 'caught', 'src/dma/mapped-buffers.ts']],
  );
  assert.match(exhibits[0].by, /^R3: /);
});

test('--list prints every exhibit and tries none', () => {
  const { status, stdout } = museum('--list');
  assert.equal(status, 0);
  assert.equal(stdout.split('\n').length - 1, EXHIBITS.length);
});

for (const words of [['--only', 'XSA-0'], ['XSA-155']]) {
  test(`O1: the call "${words.join(' ')}" means nothing: status 2, and how to call it`, () => {
    const { status, stdout, stderr } = museum(...words);
    assert.equal(status, 2);
    assert.equal(stdout, '');
    assert.match(stderr, /^museum: .+\n\nUsage: /);
  });
}
