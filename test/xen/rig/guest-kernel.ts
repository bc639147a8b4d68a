// The guests' kernel: Linux 6.1 from Debian's source package with the configuration of ../guest/kernel.config, and in
// it the first file system: a static busybox and ../guest/init. Xen loads the stripped vmlinux itself, by its note of
// the PVH entry, so that a guest needs no firmware. Compiling takes minutes, another initramfs half of one.

import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { programPath } from '../../peers/rig/needs.ts';
import { cached } from './cache.ts';
import { checkout } from './checkout.ts';
import { type PackageSet, packageFiles, unpackPackages } from './packages.ts';
import type { Steps } from './steps.ts';

const SOURCE: PackageSet = { names: ['linux-source-6.1'], withDependencies: false };

/** What is not needed to compile for this processor; the configuration's own files are. */
const LEFT_OUT = ['*/arch/[!x]*/*', '*/Documentation', '*/tools/testing', '*/drivers/gpu/drm/amd/include'];

/** The folder with `vmlinux`, built if need be. */
export async function guestKernel(): Promise<string> {
  const [init, busybox] = [checkout('test/xen/guest/init'), programPath('busybox')];
  const files = packageFiles(SOURCE);
  const fragment = readFileSync(checkout('test/xen/guest/kernel.config'), 'utf8');
  const inputs = [files, fragment, readFileSync(init), readFileSync(busybox)];
  return cached('guest', inputs, async (folder, steps) => {
    const source = await sourceTree(files);
    const objects = join(folder, 'objects');
    await steps.run('cp', ['-a', join(await compiled(source, files, fragment), 'objects'), objects]);
    const list = join(folder, 'initramfs.list');
    writeFileSync(list, initramfsList(init, busybox));
    replaceLine(join(objects, '.config'), 'CONFIG_INITRAMFS_SOURCE', `"${list}"`);
    await steps.step('link the guests’ kernel with its initramfs', () =>
      make(steps, source, objects, 'olddefconfig', 'vmlinux'),
    );
    await steps.run('strip', ['-o', join(folder, 'vmlinux'), join(objects, 'vmlinux')]);
    rmSync(objects, { recursive: true });
  });
}

/** The folder of the source, unpacked if need be. */
async function sourceTree(files: string): Promise<string> {
  const folder = await cached('linux-source', [files, ...LEFT_OUT], async (place, steps) => {
    const root = join(place, 'package');
    await unpackPackages(steps, SOURCE, root);
    const below = join(root, 'usr/src');
    const archive = readdirSync(below).find((name) => name.endsWith('.tar.xz'));
    const words = ['-xf', join(below, `${archive}`), '-C', place, '--strip-components=1'];
    const leftOut = LEFT_OUT.map((pattern) => `--exclude=${pattern}`);
    await steps.step('unpack the source of Linux', () => steps.run('tar', [...leftOut, ...words]));
    rmSync(root, { recursive: true });
  });
  return folder;
}

/** The folder with `objects`, all of the kernel but its initramfs, compiled if need be. */
function compiled(source: string, files: string, fragment: string): Promise<string> {
  return cached('guest-objects', [files, fragment], async (folder, steps) => {
    const objects = join(folder, 'objects');
    const config = checkout('test/xen/guest/kernel.config');
    await steps.run('mkdir', [objects]);
    await steps.step('configure the guests’ kernel', () =>
      make(steps, source, objects, `KCONFIG_ALLCONFIG=${config}`, 'allnoconfig'),
    );
    checkConfig(fragment, readFileSync(join(objects, '.config'), 'utf8'));
    await steps.step('compile the guests’ kernel (8 to 20 minutes, once)', () =>
      make(steps, source, objects, 'vmlinux'),
    );
  });
}

function make(steps: Steps, source: string, objects: string, ...words: string[]): Promise<string> {
  const jobs = `-j${availableParallelism()}`;
  return steps.run('nice', ['make', '-C', source, `O=${objects}`, jobs, ...words]);
}

/** An option whose conditions are not met is left out in silence. */
function checkConfig(fragment: string, config: string): void {
  const taken = new Set(config.split('\n'));
  const lost = fragment.split('\n').filter((line) => line.startsWith('CONFIG_') && !taken.has(line));
  if (lost.length > 0) throw new Error(`the kernel's configuration does not take ${lost.join(', ')}`);
}

function replaceLine(path: string, name: string, value: string): void {
  const lines = readFileSync(path, 'utf8').split('\n');
  writeFileSync(
    path,
    [...lines.filter((line) => !line.startsWith(`${name}=`)), `${name}=${value}\n`].join('\n'),
  );
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
