// A process that serves must be able to end at any moment, whatever its threads are doing.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { native } from '../hosts/linux/native.test.helper.ts';

const SERVER = new URL('./vhost-server.js', import.meta.url).href;

test('a process that exits does not wait for threads that sleep', native, async () => {
  const script = `
    const { VhostServer } = await import(${JSON.stringify(SERVER)});
    const silent = () => undefined;
    const server = new VhostServer({ workers: 2, pollMicroseconds: 0, restricted: false, sealed: false, onNotice: silent, onEnd: silent });
    await server.add({ name: 'rng', device: { kind: 'rng' }, fd: -1, listening: false }).catch(silent);
    process.exit(7);`;
  const run = promisify(execFile)(process.execPath, ['--input-type=module', '--eval', script]);
  await assert.rejects(run, ({ code }: { code: number }) => code === 7);
});
