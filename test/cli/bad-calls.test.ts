// Case O1: calls that cannot be carried out. Each ends with its exit status and one sentence on standard
// error, and leaves every file as it was and none behind.

import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { grantio, temporaryFolder } from '../support/grantio.ts';

/** What is called, the status, and what the sentence says. */
type BadCall = readonly [words: readonly string[], status: 1 | 2, says: RegExp];

const DISK = ['--disk', 'disk.img'];

const BAD_CALLS: readonly BadCall[] = [
  [['frobnicate'], 2, /unknown command 'frobnicate'/],
  [['run', '--frobnicate'], 2, /unknown option '--frobnicate'/],
  [['run', '--dsk', 'disk.img'], 2, /unknown option '--dsk'/],
  [['run', 'one.cfg', 'two.cfg'], 2, /too many arguments/],
  [['run', '--disk'], 2, /--disk .*argument missing/],
  [['run', '--disk', ',ro'], 2, /--disk ,ro: expected PATH/],
  [['run', ...DISK, '--mode', 'sideways'], 2, /'sideways' is invalid.*direct, bounce/],
  [['run', ...DISK, '--queues', '0'], 2, /--queues .*'0'.*from 1 to/],
  [['run', ...DISK, '--queues', '1.5'], 2, /--queues .*'1\.5'.*whole number/],
  [['run', ...DISK, '--queues', '-1'], 2, /--queues .*'-1'/],
  [['run', ...DISK, '--queues', '99999'], 2, /--queues .*'99999'/],
  [['run', ...DISK, '--queue-size', '100'], 2, /--queue-size.*100.*power of two/],
  [['run', ...DISK, '--queue-size', '65536'], 2, /--queue-size.*65536/],
  [['run', ...DISK, '--memory', 'lots'], 2, /--memory .*'lots'.*such as 64M/],
  [['run', ...DISK, '--memory', '1M'], 2, /--memory .*'1M'.*from 16M/],
  [['run', ...DISK, '--memory', '999G'], 2, /--memory .*'999G'/],
  [['run', ...DISK, '--nbd', 'host:port:extra'], 2, /host:port:extra.*expected HOST:PORT/],
  [['run', ...DISK, '--nbd', '127.0.0.1:99999'], 2, /port 99999, expected 0 to 65535/],
  [['run', ...DISK, '--nbd', `/${'x'.repeat(108)}`], 2, /109 bytes, expected at most 107/],
  [['run', ...DISK, '--nbd', ''], 2, /empty/],
  [['run', ...DISK, '--trace', 'missing/trace.json'], 2, /trace file missing\/trace\.json: /],
  [['run', '--trace', 'missing/trace.json'], 2, /trace file missing\/trace\.json: /],
  [['run', '--trace', 'folder'], 2, /trace file folder: /],
  [['run', ...DISK, '--trace', 'folder/../disk.img'], 2, /--trace .*would overwrite disk\.img/],
  [['run', 'no-disk.cfg', ...DISK, '--trace', 'no-disk.cfg'], 2, /--trace .*would overwrite no-disk\.cfg/],
  [['run', 'missing.cfg'], 2, /missing\.cfg: .*no such file/],
  [['run', 'folder'], 2, /folder: .*directory/],
  [['run', 'no-disk.cfg'], 2, /no disk/],
  [['run', 'xen-disk.cfg'], 2, /xen-disk\.cfg:2:10: .*specification=virtio/],
  [['run', 'qcow2.cfg'], 2, /qcow2\.cfg:2:\d+: .*qcow2.*raw/],
  [['run', ...DISK, '--grants', 'maybe'], 2, /'maybe' is invalid.*require, prefer, forbid/],
  [['run', ...DISK, '--backend-id', '32752'], 2, /--backend-id .*'32752'.*to 32751/],
  [['run', ...DISK, '--grants', 'forbid', '--mode', 'bounce'], 2, /--mode bounce: no device uses grants/],
  [['run', 'foreign.cfg', '--mode', 'direct'], 2, /--mode direct: no device uses grants/],
  [
    ['run', 'foreign.cfg', '--grants', 'require'],
    2,
    /foreign\.cfg:2:\d+: .*grant_usage=0, .*--grants require/,
  ],
  [['run', 'granted.cfg', '--grants', 'forbid'], 2, /granted\.cfg:3:\d+: .*grant_usage=1, .*--grants forbid/],
  [['run', 'untrusted.cfg', '--grants', 'forbid'], 2, /untrusted\.cfg:2:\d+: .*all of the guest's memory/],
  [['run', 'untrusted.cfg', '--mode', 'direct'], 2, /untrusted\.cfg:2:\d+: .*--mode bounce/],
  [['run', 'unserved.cfg'], 2, /unserved\.cfg:3:\d+: /],
  [['run', 'little-memory.cfg'], 2, /little-memory\.cfg:3:1: memory is 1 MiB; expected 16/],
  [['run', 'much-memory.cfg'], 2, /much-memory\.cfg:3:1: memory is 100000 MiB; /],
  [['run', 'missing-image.cfg'], 1, /missing\.img: no such file/],
  [['run', '--disk', 'missing.img'], 1, /missing\.img: no such file/],
  [['run', ...DISK, '--disk', 'missing.img,ro'], 1, /missing\.img: no such file/],
  [['run', '--disk', 'folder'], 1, /folder: is a directory/],
  [['run', '--disk', 'folder,ro'], 1, /folder: is a directory/],
  [['run', '--disk', '/dev/null'], 1, /\/dev\/null: is neither/],
  [['run', '--disk', 'empty.img'], 1, /empty\.img: is empty/],
  [['run', '--disk', 'odd.img'], 1, /odd\.img: 1000 bytes is no multiple of 512/],
  [['xen-backend', '--frobnicate'], 2, /unknown option '--frobnicate'/],
  [['xen-backend', '--rng'], 2, /--rng is for --domain ID/],
  [['xen-backend', '--domain', '1', '--domain', '2'], 2, /--domain is given twice/],
  [['xen-backend', '--domain', '1', '--rng', '--mmio', '0x1000,irq=5'], 2, /--rng comes after the --mmio/],
  [['xen-backend', '--grants', 'off'], 2, /--grants is for --domain ID; .*grant_usage/],
  [['serve'], 2, /expected a kind of device, or --config/],
  [['serve', 'bkl'], 2, /no device of the kind 'bkl'; did you mean `blk`/],
  [['serve', '--confg', 'devices.json'], 2, /unknown option '--confg'; did you mean `--config`/],
  [['serve', '--workers', '1', 'rng', '--fd', '3', '-x'], 2, /unknown option '-x'/],
  [['serve', 'blk', '--dsk', 'disk.img'], 2, /unknown option '--dsk'/],
  [['serve', 'blk', ...DISK], 2, /--socket-path or --fd is missing/],
  [
    ['serve', 'blk', ...DISK, '--socket-path', 's', '--fd', '3'],
    2,
    /--socket-path and --fd exclude each other/,
  ],
  [['serve', 'blk', ...DISK, '--blk-file', 'disk.img', '--fd', '3'], 2, /--disk and --blk-file exclude/],
  [['serve', 'blk', '--socket-path', 's'], 2, /--disk is missing/],
  [['serve', 'blk', '--socket-path', 's', '--disk', ''], 2, /--disk is empty/],
  [['serve', 'blk', ...DISK, '--socket-path', 's', '--socket-path', 't'], 2, /--socket-path is given twice/],
  [['serve', 'blk', ...DISK, '--socket-path', 'x'.repeat(108)], 2, /108 bytes, expected at most 107/],
  [['serve', 'blk', ...DISK, '--fd', 'three'], 2, /--fd 'three': expected a whole number from 3/],
  [['serve', 'blk', ...DISK, '--fd', '1'], 2, /--fd '1': expected a whole number from 3/],
  [['serve', 'blk', ...DISK, '--fd', '3', '--queues', '0'], 2, /--queues '0': .*from 1 to 64/],
  [['serve', 'blk', ...DISK, '--fd', '3', '--queue-size', '100'], 2, /--queue-size '100': .*power of two/],
  [['serve', 'blk', ...DISK, '--fd', '3', '--engine', 'steam'], 2, /--engine 'steam': expected one of auto/],
  [['serve', 'blk', ...DISK, '--fd', '3', '--serial', 'x'.repeat(21)], 2, /--serial .*21 bytes.*at most 20/],
  [['serve', 'blk', ...DISK, '--fd', '3', '--name', 'a:b'], 2, /--name 'a:b': expected up to 64/],
  [['serve', 'rng', '--socket-path', 's', '--workers', '65'], 2, /--workers '65'/],
  [['serve', 'rng', '--socket-path', 's', '--poll-us', '1e3'], 2, /--poll-us '1e3'/],
  [['serve', 'rng', '--socket-path', 's', ...DISK], 2, /unknown option '--disk'/],
  [['serve', 'rng', '--fd', '3', '--print-qemu-args', '1G'], 2, /'rng' has no --socket-path/],
  [['serve', 'rng', '--socket-path', 's', '--print-qemu-args', 'lots'], 2, /'lots': expected .* such as 1G/],
  [['serve', '--config', 'missing.json'], 2, /missing\.json: cannot be read/],
  [['serve', '--config', 'broken.json'], 2, /broken\.json:2:19: /],
  [['serve', '--config', 'no-devices.json'], 2, /no-devices\.json: devices: expected a list/],
  [['serve', '--config', 'unknown-key.json'], 2, /devices\[0\]: unknown key 'disc'; did you mean `disk`/],
  [['serve', '--config', 'bad-value.json'], 2, /devices\[0\]\.read-only: expected true or false/],
  [['serve', '--config', 'bad-queues.json'], 2, /devices\[0\]\.queues '0': expected/],
  [['serve', '--config', 'same-name.json'], 2, /two devices have the name 'rng'/],
];

const VIRTIO_DISK = 'disk.img,raw,xvda,rw,specification=virtio';

const CONFIGURATIONS: Readonly<Record<string, string>> = {
  'no-disk.cfg': '',
  'xen-disk.cfg': 'disk = [ "disk.img,raw,xvda,rw" ]',
  'qcow2.cfg': 'disk = [ "disk.img,qcow2,xvda,rw,specification=virtio" ]',
  'foreign.cfg': `disk = [ "${VIRTIO_DISK},grant_usage=0" ]`,
  'granted.cfg': `disk = [ "${VIRTIO_DISK}" ]\nvirtio = [ "type=virtio,device4,transport=mmio,grant_usage=1" ]`,
  'untrusted.cfg': `disk = [ "${VIRTIO_DISK},untrusted" ]`,
  'unserved.cfg': `disk = [ "${VIRTIO_DISK}" ]\nvirtio = [ "type=virtio,device22,transport=mmio" ]`,
  'little-memory.cfg': `disk = [ "${VIRTIO_DISK}" ]\nmemory = 1`,
  'much-memory.cfg': `disk = [ "${VIRTIO_DISK}" ]\nmemory = 100000`,
  'missing-image.cfg': 'disk = [ "missing.img,raw,xvda,rw,specification=virtio" ]',
};

const DEVICE_FILES: Readonly<Record<string, string>> = {
  'broken.json': '{ "devices": [\n  { "type": "rng" ]\n}',
  'no-devices.json': '{}',
  'unknown-key.json': '{ "devices": [{ "type": "blk", "disc": "disk.img" }] }',
  'bad-value.json': '{ "devices": [{ "type": "blk", "disk": "disk.img", "read-only": "yes" }] }',
  'bad-queues.json': '{ "devices": [{ "type": "blk", "disk": "disk.img", "queues": 0 }] }',
  'same-name.json':
    '{ "devices": [{ "type": "rng", "socket-path": "a" }, { "type": "rng", "socket-path": "b" }] }',
};

/** A folder of all that the calls name, with a folder for temporary files in it. */
function makeFiles(folder: string): void {
  for (const name of ['folder', 'tmp']) mkdirSync(join(folder, name));
  for (const [name, size] of [['disk.img', 2 ** 20] as const, ['odd.img', 1000] as const]) {
    writeFileSync(join(folder, name), 'not to be touched');
    truncateSync(join(folder, name), size);
  }
  writeFileSync(join(folder, 'empty.img'), '');
  for (const [name, text] of Object.entries(CONFIGURATIONS))
    writeFileSync(join(folder, name), `name = "guest"\n${text}\n`);
  for (const [name, text] of Object.entries(DEVICE_FILES)) writeFileSync(join(folder, name), text);
}

/** Every file below `folder` with its content. */
function contents(folder: string): Map<string, string> {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true });
  return new Map(
    entries.map((entry) => {
      const path = join(entry.parentPath, entry.name);
      return [path, entry.isFile() ? readFileSync(path, 'latin1') : 'folder'];
    }),
  );
}

for (const [words, status, says] of BAD_CALLS)
  test(`O1: grantio ${words.join(' ').slice(0, 60)} is refused`, async (t) => {
    const folder = temporaryFolder(t);
    makeFiles(folder);
    const before = contents(folder);
    const env = { ...process.env, TMPDIR: join(folder, 'tmp') };
    const ended = await grantio(t, words, { cwd: folder, env });
    assert.match(ended.stderr, says);
    assert.match(
      ended.stderr,
      /^(grantio|error): [^\n]+\n(\(Did you mean [^\n]+\?\)\n)?$/,
      'not one sentence',
    );
    assert.deepEqual({ status: ended.status, stdout: ended.stdout }, { status, stdout: '' });
    assert.deepEqual(contents(folder), before, 'files changed');
  });
