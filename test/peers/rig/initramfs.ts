// The first file system of a guest: a cpio archive of the kind "newc" (Linux,
// Documentation/driver-api/early-userspace/buffer-format.rst) with busybox, kernel modules and the script that
// is the guest's first process. Before: kernel.ts, guest-script.ts.

import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { gzipSync } from 'node:zlib';
import { guestScript } from './guest-script.ts';
import { type Kernel, modulesInOrder } from './kernel.ts';
import { programPath } from './needs.ts';

/** What a guest is made of. */
export interface GuestFiles {
  /** Modules of the kernel that it loads, by name. */
  readonly modules: readonly string[];
  /** Shell commands (guest-script.ts). */
  readonly script: string;
  /** More files at the root, by name. */
  readonly files?: ReadonlyMap<string, Uint8Array>;
}

const FOLDER = 0o040755;
const PROGRAM = 0o100755;
const FILE = 0o100644;
const CHARACTER_DEVICE = 0o020600;

/** One thing in the archive. A device has the numbers of /dev/console (Linux, admin-guide/devices.txt). */
interface Entry {
  readonly name: string;
  readonly mode: number;
  readonly content?: Uint8Array;
}

/** The initramfs of a guest, compressed. */
export function initramfs(kernel: Kernel, { modules, script, files = new Map() }: GuestFiles): Buffer {
  const paths = modulesInOrder(kernel, modules);
  const folders = ['bin', 'dev', 'proc', 'sys', 'mnt', 'modules'];
  const init = Buffer.from(
    guestScript(
      paths.map((path) => basename(path)),
      script,
    ),
  );
  const archive: Entry[] = [
    ...folders.map((name) => ({ name, mode: FOLDER })),
    // The first process speaks through it.
    { name: 'dev/console', mode: CHARACTER_DEVICE },
    { name: 'bin/busybox', mode: PROGRAM, content: readFileSync(programPath('busybox')) },
    ...paths.map((path) => ({
      name: `modules/${basename(path)}`,
      mode: FILE,
      content: readFileSync(path),
    })),
    ...[...files].map(([name, content]) => ({ name, mode: FILE, content })),
    { name: 'init', mode: PROGRAM, content: init },
    { name: 'TRAILER!!!', mode: 0 },
  ];
  return gzipSync(Buffer.concat(archive.flatMap(record)), { level: 1 });
}

/** Header, name and content of an entry, of which the latter two end on multiples of four. */
function record({ name, mode, content = new Uint8Array() }: Entry, index: number): Uint8Array[] {
  const [major, minor] = mode === CHARACTER_DEVICE ? [5, 1] : [0, 0];
  const fields = [index + 1, mode, 0, 0, 1, 0, content.length, 0, 0, major, minor, name.length + 1, 0];
  const header = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}${name}\0`;
  return [Buffer.from(header), padding(header.length), content, padding(content.length)];
}

function padding(length: number): Buffer {
  return Buffer.alloc(-length & 3);
}
