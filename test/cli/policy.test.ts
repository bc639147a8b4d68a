// `grantio run --grants` and `--explain`: how each device reaches the guest's memory, and why.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { grantio, temporaryFolder } from '../support/grantio.ts';
import { checkExposure, parseReport } from '../support/report.ts';

/** A folder with disk.img and guest.cfg, whose devices have these parts. */
function folderWith(test: TestContext, disk = '', entropy?: string): string {
  const folder = temporaryFolder(test);
  writeFileSync(join(folder, 'disk.img'), Buffer.alloc(2 ** 16, 'disk'));
  const lines = ['name = "web"', `disk = [ "disk.img,raw,xvda,rw,specification=virtio${disk}" ]`];
  if (entropy !== undefined) lines.push(`virtio = [ "type=virtio,device4,transport=mmio${entropy}" ]`);
  writeFileSync(join(folder, 'guest.cfg'), `${lines.join('\n')}\n`);
  return folder;
}

/** The parts of the JSON document that this is about. */
interface Document {
  readonly decisions?: readonly {
    readonly device: string;
    readonly policy: string;
    readonly access: string;
    readonly backend?: number;
    readonly source?: string;
    readonly reason?: string;
    readonly steps: readonly { readonly about: string; readonly says: string }[];
  }[];
  readonly withoutGrants: readonly string[];
  readonly modes: readonly unknown[];
}

test('--explain says for each device what was considered, before anything is copied', async (t) => {
  const cwd = folderWith(t, '', ',grant_usage=1');
  const { status, stdout, stderr } = await grantio(t, ['run', 'guest.cfg', '--explain'], { cwd });
  assert.deepEqual({ status, stderr }, { status: 0, stderr: '' });
  const [explanation] = stdout.split('\nweb: pvh on arm\n');
  assert.equal(
    explanation,
    `xvda: grants
  1. guest: domain 2 is a pvh guest on arm: the policy decides
  2. policy: require, the guest's for all devices
  3. device tree: /virtio@2000000 names domain 1 (iommus)
  4. xenstore: /local/domain/2/grant-dma/virtio_disk/0 names domain 1
  5. domain 0 by default: off; the configuration does not ask for it
  6. decision: grants to domain 1, named by the device tree; a device that does not insist on them is refused
entropy0: grants
  1. guest: domain 2 is a pvh guest on arm: the policy decides
  2. policy: require, of this device
  3. device tree: /virtio@2000200 names domain 1 (iommus)
  4. xenstore: /local/domain/2/grant-dma/virtio/1 names domain 1
  5. domain 0 by default: off; the configuration does not ask for it
  6. decision: grants to domain 1, named by the device tree; a device that does not insist on them is refused
`,
  );
});

test('on x86, where Xen hands out no device tree, xenstore decides; --json has the decisions', async (t) => {
  const cwd = folderWith(t);
  const words = [
    'run',
    'guest.cfg',
    '--arch',
    'x86',
    '--mode',
    'bounce',
    '--explain',
    '--json',
    '--grants',
    'prefer',
  ];
  const { status, stdout, stderr } = await grantio(t, words, { cwd });
  assert.deepEqual({ status, stderr }, { status: 0, stderr: '' });
  parseReport(stdout).forEach(checkExposure);
  const { decisions, withoutGrants } = JSON.parse(stdout) as Document;
  const [{ steps, ...decision }, ...more] = decisions!;
  assert.deepEqual(decision, {
    device: 'xvda',
    policy: 'prefer',
    access: 'grants',
    backend: 1,
    source: 'xenstore',
  });
  assert.deepEqual({ more, withoutGrants }, { more: [], withoutGrants: [] });
  assert.deepEqual(
    steps.map(({ about }) => about),
    ['guest', 'policy', 'device tree', 'xenstore', 'domain 0 by default', 'decision'],
  );
});

for (const [disk, words] of [
  [',grant_usage=0', []],
  [',grant_usage=0', ['--grants', 'prefer']],
  ['', ['--grants', 'forbid']],
  ['', ['--grants', 'forbid', '--arch', 'x86']],
] as const)
  test(`R11: a disk with "${disk}" and ${words.join(' ')} is served without grants, and that is said`, async (t) => {
    const cwd = folderWith(t, disk);
    const json = await grantio(t, ['run', 'guest.cfg', '--json', ...words], { cwd });
    assert.deepEqual({ status: json.status, stderr: json.stderr }, { status: 0, stderr: '' });
    const [mode, ...others] = parseReport(json.stdout);
    assert.deepEqual([mode!.mode, mode!.identical, mode!.pagesGranted], ['plain', true, 0]);
    assert.deepEqual(
      { others, without: (JSON.parse(json.stdout) as Document).withoutGrants },
      { others: [], without: ['xvda'] },
    );
    const text = await grantio(t, ['run', 'guest.cfg', ...words], { cwd });
    assert.match(
      text.stdout,
      /^xvda without grants: the backend could read and overwrite all 64\.0 MiB of the guest/m,
    );
  });

test('R11: one guest has devices with grants and without', async (t) => {
  const cwd = folderWith(t, '', ',grant_usage=0');
  const { status, stdout, stderr } = await grantio(
    t,
    ['run', 'guest.cfg', '--mode', 'bounce', '--explain', '--json'],
    { cwd },
  );
  assert.deepEqual({ status, stderr }, { status: 0, stderr: '' });
  assert.deepEqual(
    (JSON.parse(stdout) as Document).decisions?.map(({ device, policy, access }) => [device, policy, access]),
    [
      ['xvda', 'require', 'grants'],
      ['entropy0', 'forbid', 'plain'],
    ],
  );
  assert.equal(parseReport(stdout).length, 1);
});

for (const [id, reason] of [
  ['3', 'the device tree names domain 1, the configuration domain 3'],
  ['2', 'the configuration names domain 2: the guest itself cannot be the backend of its device'],
] as const)
  test(`G24: --backend-id ${id} is refused with the reason, status 1, and explained`, async (t) => {
    const cwd = folderWith(t);
    const words = ['run', 'guest.cfg', '--backend-id', id];
    const short = await grantio(t, words, { cwd });
    assert.deepEqual(short, {
      status: 1,
      signal: null,
      stdout: '',
      stderr: `grantio: virtio_disk device 0 is refused: ${reason}\n`,
    });
    const text = await grantio(t, [...words, '--explain'], { cwd });
    assert.equal(text.status, 1);
    assert.match(text.stdout, new RegExp(`^xvda: refused\n[^]*\n  7\\. decision: refused: ${reason}\n$`));
    const json = await grantio(t, [...words, '--explain', '--json'], { cwd });
    assert.equal(json.status, 1);
    const { decisions, modes } = JSON.parse(json.stdout) as Document;
    assert.deepEqual([decisions?.[0]?.access, decisions?.[0]?.reason, modes], ['refused', reason, []]);
  });

test('G24: --backend-id that says the same as the other sources changes nothing', async (t) => {
  const cwd = folderWith(t);
  const words = ['run', 'guest.cfg', '--backend-id', '1', '--mode', 'bounce', '--json'];
  const { status, stdout, stderr } = await grantio(t, words, { cwd });
  assert.deepEqual({ status, stderr }, { status: 0, stderr: '' });
  parseReport(stdout).forEach(checkExposure);
});

test('with --run the explanation goes to standard error, which is not the command’s', async (t) => {
  const cwd = folderWith(t, ',grant_usage=0');
  const words = ['run', 'guest.cfg', '--explain', '--run', 'echo "$uri"'];
  const { status, stdout, stderr } = await grantio(t, words, { cwd });
  assert.equal(status, 0, stderr);
  assert.match(stdout, /^nbd\+unix:[^\n]*\n$/);
  assert.match(stderr, /^xvda: plain\n {2}1\. guest: /);
  assert.match(stderr, /^xvda without grants: /m);
});
