// `grantio xenstored` as a process: however it is called, it serves until a signal, and a call that cannot be
// carried out ends with its status.

import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { connectXenstore } from '../../src/cli/xenstore-socket.ts';
import { grantio, startGrantio, temporaryFolder } from '../support/grantio.ts';

for (const words of [
  ['xenstored', '--socket', 'store'],
  ['xenstored', '--socket=store'],
])
  test(`C9: grantio ${words.join(' ')} serves until SIGTERM, and takes its socket with it`, async (t) => {
    const folder = temporaryFolder(t);
    const running = startGrantio(t, words, { cwd: folder });
    // The socket is put into its place when it listens.
    while (!existsSync(join(folder, 'store'))) await delay(5);
    const client = await connectXenstore(join(folder, 'store'));
    await client.write('/a', 'value');
    assert.equal(await client.read('/a'), 'value');
    running.signal('SIGTERM');
    const { status, stdout, stderr } = await running.ended;
    assert.equal(status, 0, stderr);
    assert.equal(stdout, 'grantio xenstored: listening on store\n');
    assert.match(stderr, /^\ngrantio: SIGTERM: closing the store/);
    assert.deepEqual(readdirSync(folder), []);
  });

test('O1: calls of xenstored that cannot be carried out', async (t) => {
  const cwd = temporaryFolder(t);
  const calls: Array<[words: string[], status: number, says: RegExp]> = [
    [[], 2, /required option '--socket <path>' not specified/],
    [['--socket'], 2, /option '--socket <path>' argument missing/],
    [['--socket', ''], 2, /socket path: empty/],
    [['--socket', 'a', '--frobnicate'], 2, /unknown option '--frobnicate'/],
    [['--socket', 'a', 'b'], 2, /too many arguments/],
    [['--socket', 'none/store'], 1, /socket none\/store cannot be made/],
    [['--socket', '.'], 1, /socket \. is there and not a socket/],
  ];
  for (const [words, status, says] of calls) {
    const ended = await grantio(t, ['xenstored', ...words], { cwd });
    assert.match(ended.stderr, says);
    assert.deepEqual([ended.status, ended.stdout], [status, ''], words.join(' '));
  }
  assert.deepEqual(readdirSync(cwd), []);
});

test('xenstored --help tells the option and the exit statuses', async (t) => {
  const { status, stdout, stderr } = await grantio(t, ['xenstored', '--help']);
  assert.deepEqual({ status, stderr }, { status: 0, stderr: '' });
  assert.match(stdout, /^Usage: grantio xenstored .*--socket <path>.*status 0 .* 1 .* 2 /s);
});
