// The programs of other projects that the rigs need, and the Debian packages that hold them
// (scripts/peers-install.sh installs all of them).

import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { stockKernel } from './kernel.ts';

/** Something that must be installed. */
export interface Need {
  readonly what: string;
  /** The Debian package. */
  readonly from: string;
  isThere(): boolean;
}

/** fsck is not on every user's PATH. */
const FOLDERS = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/local/sbin', '/usr/sbin', '/sbin'];

export const UML = program('linux.uml', 'user-mode-linux');
export const QEMU = program('qemu-system-x86_64', 'qemu-system-x86');
export const STORAGE_DAEMON = program('qemu-storage-daemon', 'qemu-system-common');
export const BUSYBOX = program('busybox', 'busybox-static');
export const E2FSCK = program('e2fsck', 'e2fsprogs');
export const STOCK_KERNEL: Need = {
  what: 'a kernel in /boot with its modules',
  from: 'linux-image-amd64',
  isThere: () => stockKernel() !== undefined,
};

/** Why a test is skipped: what is missing. Undefined if all is there. */
export function missing(needs: readonly Need[]): string | undefined {
  const absent = needs.filter((need) => !need.isThere());
  if (absent.length === 0) return undefined;
  const list = absent.map(({ what, from }) => `${what} (Debian package ${from})`).join(', ');
  return `not installed: ${list}; npm run peers:install`;
}

/** The path of an installed program, or its bare name if there is none. */
export function programPath(name: string): string {
  return FOLDERS.map((folder) => join(folder, name)).find(isExecutable) ?? name;
}

function program(what: string, from: string): Need {
  return { what, from, isThere: () => isExecutable(programPath(what)) };
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
