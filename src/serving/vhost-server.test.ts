// A process that serves must be able to end at any moment, whatever its threads are doing.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { native } from '../hosts/linux/native.test.helper.ts';

const SERVER = new URL('./vhost-server.js', import.meta.url).href;

test('a process that exits does not wait for threads that sleep', native, async () => {
  const script = `
    import(${JSON.stringify(SERVER)}).then(async ({ VhostServer }) => {
      const silent = () => undefined;
      const options = { workers: 2, pollMicroseconds: 0, restricted: false, sealed: false };
      const server = new VhostServer({ ...options, onNotice: silent, onEnd: silent });
      // It answers when all threads have started; that nobody is connected there is of no interest.
      await server.add({ name: 'rng', device: { kind: 'rng' }, fd: -1, listening: false }).catch(silent);
      process.exit(7);
    });`;
  const run = promisify(execFile)(process.execPath, ['--eval', script]);
  await assert.rejects(run, ({ code }: { code: number }) => code === 7);
});
