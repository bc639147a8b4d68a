// `grantio decode` as users call it.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { GRANTIO, grantio } from '../support/grantio.ts';

/** Runs a line of the shell in which `grantio` is the program. */
function shell(line: string) {
  const script = `grantio() { "$NODE" "$GRANTIO" "$@"; }; ${line}`;
  const env = { ...process.env, NODE: process.execPath, GRANTIO };
  const { status, stdout, stderr } = spawnSync('bash', ['-c', script], { env, encoding: 'utf8' });
  return { status, stdout, stderr };
}

test('decode prints what an address stands for, and ends with 0', async (t) => {
  const { status, stdout, stderr } = await grantio(t, ['decode', '0x8000000000008ff0+0x20']);
  assert.deepEqual(
    { status, stdout, stderr },
    {
      status: 0,
      stdout: '0x8000000000008ff0+0x20: grants 8-9 (0x8-0x9), offset 0xff0, 32 bytes in 2 pages\n',
      stderr: '',
    },
  );
});

test('G5: what is no grant address is named, and the status is 1', async (t) => {
  const { status, stdout, stderr } = await grantio(t, ['decode', '0x44aa8', '--json']);
  assert.deepEqual({ status, stderr }, { status: 1, stderr: '' });
  assert.equal((JSON.parse(stdout) as { fault: string }).fault, 'bit-63-clear');
});

test('O1: calls that are wrong end with 2 and a sentence on standard error', async (t) => {
  const calls: [words: string[], says: RegExp][] = [
    [[], /^grantio: decode: name an address/],
    [['nonsense'], /^grantio: "nonsense" is no address/],
    [['--ref', '0x100000000'], /^error: option '--ref <reference>'.*from 0 to 4294967295/],
    [['--ref', '8', '--offset', '4096'], /^error: option '--offset <bytes>'.*from 0 to 4095/],
    [['--ref', '-1'], /^error: /],
    [['--ref', '1.5'], /^error: option '--ref <reference>'/],
    [['--ref', '8', '0x8000000000008000'], /^grantio: --ref makes an address/],
  ];
  for (const [words, says] of calls) {
    const { status, stdout, stderr } = await grantio(t, ['decode', ...words]);
    assert.deepEqual({ status, stdout }, { status: 2, stdout: '' }, words.join(' '));
    assert.match(stderr, says);
  }
});

test('an address that --ref made is decoded again, also in a log', () => {
  const line = 'echo "sent $(grantio decode --ref 68 --offset 0xaa8), done" | grantio decode -';
  assert.deepEqual(shell(line), {
    status: 0,
    stdout: 'sent 0x8000000000044aa8 [grant 68 (0x44), offset 0xaa8], done\n',
    stderr: '',
  });
});

test('a line is answered when it comes, not when the log ends', async (t) => {
  const child = spawn(process.execPath, [GRANTIO, 'decode', '-'], { stdio: ['pipe', 'pipe', 'inherit'] });
  t.after(() => child.kill());
  child.stdin.write('0x8000000000044aa8\nnot yet a li');
  const [answer] = (await once(child.stdout, 'data')) as [Buffer];
  assert.equal(answer.toString(), '0x8000000000044aa8 [grant 68 (0x44), offset 0xaa8]\n');
  child.stdin.end();
  assert.equal((await once(child.stdout, 'data')).toString(), 'not yet a li');
});

test('O: a log whose reader goes away ends the command, silently, with 0', () => {
  const line = 'yes 0x8000000000044aa8 | { grantio decode -; echo "status $?" >&2; } | head -1';
  assert.deepEqual(shell(line), {
    status: 0,
    stdout: '0x8000000000044aa8 [grant 68 (0x44), offset 0xaa8]\n',
    stderr: 'status 0\n',
  });
});

test('decode --help has the forms, examples and exit statuses', async (t) => {
  const { status, stdout } = await grantio(t, ['decode', '--help']);
  assert.equal(status, 0);
  for (const part of ['--ref', '--offset', '--json', 'ADDRESS+LENGTH', 'Examples:', 'Exit status: 0'])
    assert.ok(stdout.includes(part), part);
});
