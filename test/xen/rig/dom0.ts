// What the first domain is made of: Debian's hypervisor, kernel and toolstack from their packages, unpacked into the
// image of a disk with Node's program, and the initramfs that mounts it. Nothing in the image depends on grantio: that
// comes with the share, at each boot.

import {
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { initramfs } from '../../peers/rig/initramfs.ts';
import { programPath } from '../../peers/rig/needs.ts';
import { cached } from './cache.ts';
import { type PackageSet, packageFiles, unpackPackages } from './packages.ts';
import type { Steps } from './steps.ts';

const PACKAGES: PackageSet = {
  names: [
    ...['xen-hypervisor-4.17-amd64', 'xen-utils-4.17', 'xenstore-utils', 'linux-image-amd64'],
    ...['bash', 'busybox-static', 'coreutils', 'e2fsprogs', 'iproute2', 'kmod', 'mount', 'procps', 'strace'],
    // For guests of the benchmark whose disk it serves.
    'qemu-system-xen',
    // Node's program needs it.
    'libstdc++6',
  ],
  withDependencies: true,
};

/** Room on the disk; the image holds only what is written to it. */
const SIZE = '2500M';

/** Modules with which the initramfs comes to the disk and to the share. */
const MODULES = ['virtio_pci', 'virtio_blk', 'crc32c_generic', 'ext4', '9p', '9pnet_virtio'];

/** What the initramfs does then: the rest is the share's (../dom0/init). */
const MOUNT = `
step 'mount the disk and the share'
mount -t ext4 /dev/vda /mnt
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 share /mnt/share
mount --move /dev /mnt/dev
umount /sys /proc
exec switch_root /mnt /bin/bash /share/dom0/init
`;

/** The folder with `xen`, `vmlinuz`, `initrd` and `root.img`, built if need be. */
export function dom0(): Promise<string> {
  // What this file does belongs to what goes in.
  const inputs = [packageFiles(PACKAGES), readFileSync(process.execPath), readFileSync(import.meta.filename)];
  return cached('dom0', inputs, async (folder, steps) => {
    const root = join(folder, 'root');
    await unpackPackages(steps, PACKAGES, root);
    const version = readdirSync(join(root, 'lib/modules'))[0]!;
    await steps.run('depmod', ['-b', root, version]);
    writeFileSync(join(folder, 'xen'), gunzipSync(readFileSync(join(root, 'boot/xen-4.17-amd64.gz'))));
    copyFileSync(join(root, `boot/vmlinuz-${version}`), join(folder, 'vmlinuz'));
    const kernel = { image: join(folder, 'vmlinuz'), modules: join(root, 'lib/modules', version) };
    writeFileSync(join(folder, 'initrd'), initramfs(kernel, { modules: MODULES, script: MOUNT }));
    fill(root);
    await makeImage(steps, root, join(folder, 'root.img'));
    rmSync(root, { recursive: true });
  });
}

/** Adds what the packages' own scripts would make when they are installed, and Node. */
function fill(root: string): void {
  for (const name of ['share', 'guest', 'grantio', 'run', 'tmp', 'root', 'proc', 'sys', 'dev', 'var/lib/xen'])
    mkdirSync(join(root, name), { recursive: true });
  link(root, 'var/run', '/run');
  link(root, 'var/lock', '/run/lock');
  link(root, 'etc/mtab', '/proc/mounts');
  link(root, 'bin/sh', 'bash');
  writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/bash\n');
  writeFileSync(join(root, 'etc/group'), 'root:x:0:\n');
  mkdirSync(join(root, 'usr/local/bin'), { recursive: true });
  copyFileSync(process.execPath, join(root, 'usr/local/bin/node'));
}

function link(root: string, name: string, to: string): void {
  const path = join(root, name);
  mkdirSync(dirname(path), { recursive: true });
  rmSync(path, { recursive: true, force: true });
  symlinkSync(to, path);
}

async function makeImage(steps: Steps, root: string, image: string): Promise<void> {
  const words = [
    '-q',
    '-F',
    '-t',
    'ext4',
    '-O',
    '^has_journal',
    '-E',
    'root_owner=0:0',
    '-d',
    root,
    image,
    SIZE,
  ];
  await steps.step('make the first domain’s disk', () => steps.run(programPath('mke2fs'), words));
}
