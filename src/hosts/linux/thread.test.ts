// How threads are started: nothing is compiled for them in the background where that may abort the process.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';

const skip = Number.parseInt(process.versions.node, 10) >= 24 && 'this Node knows its threads to their end';

test('what a thread runs is compiled by the thread itself', { skip }, () => {
  const module = JSON.stringify(new URL('./thread.js', import.meta.url).href);
  const script = `import(${module}).then((it) => it.startThread('thread.test.helper', ${module}, {}))`;
  const words = ['--trace-opt', '--eval', script];
  const { status, stdout, stderr } = spawnSync(process.execPath, words, { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  assert.match(stdout, /the thread has ended with -?\d+/);
  const compilations = stdout
    .split('\n')
    .filter((line) => /compiling method .* <JSFunction busy /.test(line));
  assert.ok(compilations.length > 0, stdout);
  for (const line of compilations) assert.match(line, /ConcurrencyMode::kSynchronous/);
});
