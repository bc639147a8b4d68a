// The guests' kernel: Linux 6.1 from Debian's source package with the configuration of ../guest/kernel.config, and in
// it the first file system: a static busybox and ../guest/init. Xen loads the stripped vmlinux itself, by its note of
// the PVH entry, so that a guest needs no firmware.

import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { programPath } from '../../peers/rig/needs.ts';
import { cached } from './cache.ts';
import { checkout } from './checkout.ts';
import { type PackageSet, packageFiles, unpackPackages } from './packages.ts';
import type { Steps } from './steps.ts';

const SOURCE: PackageSet = { names: ['linux-source-6.1'], withDependencies: false };

/** What is not needed to compile for this processor; the configuration's own files are. */
const LEFT_OUT = [
  '*/arch/arm*/boot',
  '*/Documentation/*/*',
  '*/tools/testing',
  '*/drivers/gpu/drm/amd/include',
];

/** What makes of it a kernel for the guests of backends that know no grants (scripts/config of Linux). */
const WITHOUT_GRANTS = ['--disable', 'XEN_VIRTIO_FORCE_GRANT'];

/** The folder with `vmlinux` and `vmlinux-without-grants`, built if need be. */
export function guestKernel(): Promise<string> {
  const [init, busybox] = [checkout('test/xen/guest/init'), programPath('busybox')];
  const config = readFileSync(checkout('test/xen/guest/kernel.config'), 'utf8');
  const inputs = [packageFiles(SOURCE), config, readFileSync(init), readFileSync(busybox), ...WITHOUT_GRANTS];
  return cached('guest', inputs, async (folder, steps) => {
    const [source, objects] = [join(folder, 'source'), join(folder, 'objects')];
    await unpackSource(steps, source);
    mkdirSync(objects);
    writeFileSync(join(folder, 'initramfs.list'), initramfsList(init, busybox));
    const initramfs = `CONFIG_INITRAMFS_SOURCE="${join(folder, 'initramfs.list')}"\n`;
    writeFileSync(join(folder, 'config'), config + initramfs);
    await steps.step('configure the guests’ kernel', () =>
      make(steps, source, objects, `KCONFIG_ALLCONFIG=${join(folder, 'config')}`, 'allnoconfig'),
    );
    checkConfig(config, readFileSync(join(objects, '.config'), 'utf8'));
    await steps.step('compile the guests’ kernel (5 to 20 minutes, once)', () =>
      make(steps, source, objects, 'vmlinux'),
    );
    await steps.run('strip', ['-o', join(folder, 'vmlinux'), join(objects, 'vmlinux')]);
    const change = ['--file', join(objects, '.config'), ...WITHOUT_GRANTS];
    await steps.run(join(source, 'scripts/config'), change);
    await steps.step('compile it once more, without grants', () => make(steps, source, objects, 'vmlinux'));
    await steps.run('strip', ['-o', join(folder, 'vmlinux-without-grants'), join(objects, 'vmlinux')]);
    for (const name of [source, objects]) rmSync(name, { recursive: true });
  });
}

async function unpackSource(steps: Steps, source: string): Promise<void> {
  const unpacked = `${source}.package`;
  await unpackPackages(steps, SOURCE, unpacked);
  const archive = join(unpacked, 'usr/src', `${SOURCE.names[0]}.tar.xz`);
  mkdirSync(source);
  const leftOut = LEFT_OUT.map((pattern) => `--exclude=${pattern}`);
  await steps.step('unpack the source of Linux', () =>
    steps.run('tar', [...leftOut, '-xf', archive, '-C', source, '--strip-components=1']),
  );
  rmSync(unpacked, { recursive: true });
}

function make(steps: Steps, source: string, objects: string, ...words: string[]): Promise<string> {
  // More jobs than processors: the many short ones wait for each other.
  const jobs = `-j${2 * availableParallelism()}`;
  return steps.run('make', ['-C', source, `O=${objects}`, jobs, ...words]);
}

/** An option whose conditions are not met is left out in silence. */
function checkConfig(fragment: string, config: string): void {
  const taken = new Set(config.split('\n'));
  const lost = fragment.split('\n').filter((line) => line.startsWith('CONFIG_') && !taken.has(line));
  if (lost.length > 0) throw new Error(`the kernel's configuration does not take ${lost.join(', ')}`);
}

/** The first file system, as usr/gen_init_cpio.c of Linux takes it; the first process speaks through the console. */
function initramfsList(init: string, busybox: string): string {
  const folders = ['bin', 'dev', 'proc', 'sys', 'mnt', 'tmp'];
  return [
    ...folders.map((name) => `dir /${name} 755 0 0`),
    'nod /dev/console 600 0 0 c 5 1',
    `file /bin/busybox ${busybox} 755 0 0`,
    `file /init ${init} 755 0 0`,
    '',
  ].join('\n');
}
