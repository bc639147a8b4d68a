import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { Libc } from '../hosts/linux/libc.ts';
import { arenaOfTest, libcOfTest, native } from '../hosts/linux/native.test.helper.ts';
import { XenClaims } from './xen-claims.ts';

const ENOLCK = 37;

/** A file, and backends that claim guests in it. */
function scene(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-claims-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'claims');
  const backend = (fakes: Partial<Libc> = {}) =>
    new XenClaims({ ...libcOfTest(), ...fakes }, arenaOfTest(), path);
  return { path, backend };
}

test('a guest has one backend, which may claim it again; others have other guests', native, (t) => {
  const { backend } = scene(t);
  const [first, second] = [backend(), backend()];
  assert.equal(first.claim(3), undefined);
  assert.equal(first.claim(3), undefined);
  assert.deepEqual(second.claim(3), { pid: process.pid });
  for (const guest of [2, 4, 0x7fef]) assert.equal(second.claim(guest), undefined);
  assert.deepEqual(first.claim(2), { pid: process.pid });
  first.close();
  second.close();
});

test('what is given up is free, and what never was one’s own stays with its owner', native, (t) => {
  const { backend } = scene(t);
  const [first, second] = [backend(), backend()];
  first.claim(3);
  first.claim(4);
  second.release(3);
  assert.deepEqual(second.claim(3), { pid: process.pid });
  first.release(3);
  assert.equal(second.claim(3), undefined);
  assert.deepEqual(second.claim(4), { pid: process.pid });
  first.close();
  assert.equal(second.claim(4), undefined);
  second.close();
});

test('C1: what a killed process has claimed is free at once', native, async (t) => {
  const { path, backend } = scene(t);
  const place = (name: string) => JSON.stringify(new URL(name, import.meta.url).href);
  const script = `
    const { XenClaims } = await import(${place('./xen-claims.js')});
    const { Arena } = await import(${place('../hosts/linux/arena.js')});
    const { loadLibc } = await import(${place('../hosts/linux/libc.js')});
    const libc = loadLibc();
    new XenClaims(libc, new Arena(libc, 4096), ${JSON.stringify(path)}).claim(3);
    console.log('claimed');
    setInterval(() => undefined, 1000);`;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exited = once(child, 'exit');
  await once(child.stdout, 'data');
  const successor = backend();
  assert.deepEqual(successor.claim(3), { pid: child.pid });
  child.kill('SIGKILL');
  await exited;
  assert.equal(successor.claim(3), undefined);
  successor.close();
});

test('a folder without locks is an error that says what to do', native, (t) => {
  const claims = scene(t).backend({ fcntl: () => -1, errno: () => ENOLCK });
  assert.throws(
    () => claims.claim(3),
    /claims cannot be locked: choose a --state folder in \/run, or --state none/,
  );
  claims.close();
});
