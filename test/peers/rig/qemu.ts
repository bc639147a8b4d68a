// QEMU under software emulation with Debian's stock kernel: a PC whose vhost-user devices are on PCI.

import { type GuestFiles, initramfs } from './initramfs.ts';
import { stockKernel } from './kernel.ts';
import { BUSYBOX, QEMU, STOCK_KERNEL } from './needs.ts';
import type { Program } from './program.ts';
import type { Rig } from './rig.ts';

/** What a rig of QEMU with a Linux guest needs. */
export const QEMU_NEEDS = [QEMU, STOCK_KERNEL, BUSYBOX];

/** A PC. */
export interface Machine {
  readonly socket: string;
  /** QEMU's -device, to which the connection to the socket is added. */
  readonly device: string;
  readonly processors?: number;
  /** Whether a backend that is away is tried again each second; not all of QEMU's devices can. */
  readonly reconnects?: boolean;
  /** More words for QEMU's command line. */
  readonly more?: readonly string[];
}

/** Starts QEMU with the machine's own firmware. */
export function startQemu(
  rig: Rig,
  { socket, device, processors = 1, reconnects = true, more = [] }: Machine,
): Program {
  const backend = `socket,id=backend,path=${socket}${reconnects ? ',reconnect=1' : ''}`;
  return rig.start(
    'qemu',
    'qemu-system-x86_64',
    ...['-nodefaults', '-no-reboot', '-display', 'none', '-serial', 'stdio', '-accel', 'tcg'],
    ...['-object', 'memory-backend-memfd,id=memory,size=256M,share=on', '-m', '256M'],
    ...['-machine', 'q35,memory-backend=memory', '-smp', `${processors}`],
    ...['-chardev', backend, '-device', `${device},chardev=backend`],
    ...more,
  );
}

/** Starts QEMU with Debian's kernel, which runs the script of `files`. */
export function startLinux(rig: Rig, machine: Machine, files: GuestFiles, parameters = ''): Program {
  const kernel = stockKernel()!;
  const modules = ['virtio_pci', ...files.modules];
  const initrd = rig.file('qemu.initrd', initramfs(kernel, { ...files, modules }));
  const append = `console=ttyS0 rdinit=/init quiet panic=-1 ${parameters}`;
  const boot = ['-kernel', kernel.image, '-initrd', initrd, '-append', append];
  return startQemu(rig, { ...machine, more: [...(machine.more ?? []), ...boot] });
}
