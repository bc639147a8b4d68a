// `grantio run --run COMMAND`: the command's surroundings, its exit status, and what is left when it ends.

import assert from 'node:assert/strict';
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type Ended, grantio, temporaryFolder } from '../support/grantio.ts';
import { parseReport } from '../support/report.ts';

interface Run extends Ended {
  readonly folder: string;
}

/** Runs `command` beside a disk of 64 KiB, in a folder that is also the place for temporary files. */
async function runCommand(t: TestContext, command: string, ...words: readonly string[]): Promise<Run> {
  const folder = temporaryFolder(t);
  writeFileSync(join(folder, 'disk.img'), Buffer.alloc(2 ** 16, 0x77));
  const env = { ...process.env, TMPDIR: folder };
  const call = ['run', '--disk', 'disk.img', ...words, '--run', command];
  return { folder, ...(await grantio(t, call, { cwd: folder, env })) };
}

for (const [command, status] of [
  ['true', 0],
  ['exit 3', 3],
  ['exit 255', 255],
  ['no-such-program-of-any-name', 127],
  ['kill -KILL $$', 128 + 9],
  ['kill -TERM $$', 128 + 15],
] as const)
  test(`--run '${command}' ends with status ${status}, and with no grant left`, async (t) => {
    const run = await runCommand(t, command, '--json');
    assert.equal(run.status, status, run.stderr);
    assert.deepEqual(
      parseReport(run.stdout).map(({ leakedGrants }) => leakedGrants),
      [0],
    );
    assert.deepEqual(readdirSync(run.folder), ['disk.img'], 'left behind');
  });

test('the command finds $uri, $nbd and $unixsocket, and the socket is there while it runs', async (t) => {
  const command = 'echo "$uri"; echo "$nbd"; echo "$unixsocket"; test -S "$unixsocket" && echo there';
  const { folder, status, stdout, stderr } = await runCommand(t, command);
  assert.equal(status, 0, stderr);
  const [uri, nbd, socket, there] = stdout.split('\n');
  assert.match(uri, /^nbd\+unix:\/\/\/xvda\?socket=\//);
  assert.equal(nbd, uri);
  assert.equal(decodeURIComponent(new URL(uri).searchParams.get('socket') ?? ''), socket);
  assert.equal(there, 'there');
  // In a folder of its own, which goes away with it.
  assert.equal(dirname(dirname(socket)), folder);
  assert.ok(!existsSync(dirname(socket)), `${dirname(socket)} is still there`);
});

test('with --nbd the command is given that socket', async (t) => {
  const { folder, status, stdout, stderr } = await runCommand(
    t,
    'echo "$unixsocket $uri"',
    '--nbd',
    'a sock',
  );
  assert.equal(status, 0, stderr);
  assert.equal(stdout, 'a sock nbd+unix:///xvda?socket=a%20sock\n');
  assert.deepEqual(readdirSync(folder), ['disk.img']);
});

test("standard output is the command's; the report goes to standard error", async (t) => {
  const { status, stdout, stderr } = await runCommand(t, 'echo said', '--mode', 'direct');
  assert.deepEqual({ status, stdout }, { status: 0, stdout: 'said\n' });
  assert.match(stderr, /direct/);
});

test('the command has the rest of the environment, and the working folder', async (t) => {
  const { folder, status, stdout, stderr } = await runCommand(t, 'echo "$TMPDIR"; pwd -P');
  assert.equal(status, 0, stderr);
  const [place, here] = stdout.split('\n');
  assert.equal(place, folder);
  assert.equal(here.endsWith(folder), true, here);
});
