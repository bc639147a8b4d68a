// QEMU under software emulation with Debian's stock kernel: a PC whose vhost-user devices are on PCI.

import { type GuestFiles, initramfs } from './initramfs.ts';
import { stockKernel } from './kernel.ts';
import { BUSYBOX, QEMU, STOCK_KERNEL } from './needs.ts';
import type { Program } from './program.ts';
import type { Rig } from './rig.ts';

/** What a rig of QEMU with a Linux guest needs. */
export const QEMU_NEEDS = [QEMU, STOCK_KERNEL, BUSYBOX];

/** Starts QEMU with `words` for its devices and its own firmware. */
export function startQemu(rig: Rig, words: readonly string[]): Program {
  const plain = ['-nodefaults', '-no-reboot', '-display', 'none', '-serial', 'stdio', '-accel', 'tcg'];
  return rig.start('qemu', 'qemu-system-x86_64', ...plain, ...words);
}

/** Starts QEMU with `words` for its devices and Debian's kernel, which runs the script of `files`. */
export function startLinux(rig: Rig, words: readonly string[], files: GuestFiles, parameters = ''): Program {
  const kernel = stockKernel()!;
  const modules = ['virtio_pci', ...files.modules];
  const initrd = rig.file('qemu.initrd', initramfs(kernel, { ...files, modules }));
  const append = `console=ttyS0 rdinit=/init quiet panic=-1 ${parameters}`;
  return startQemu(rig, [...words, '-kernel', kernel.image, '-initrd', initrd, '-append', append]);
}
