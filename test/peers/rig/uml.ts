// User-Mode Linux: a Linux kernel that is a process. Its virtio_uml is a vhost-user frontend with one queue for
// each of virtio-blk's processors, of which it has one.

import type { Program } from './program.ts';
import { type GuestFiles, initramfs } from './initramfs.ts';
import { umlKernel } from './kernel.ts';
import { BUSYBOX, UML } from './needs.ts';
import type { Rig } from './rig.ts';

/** What a rig of User-Mode Linux needs. */
export const UML_NEEDS = [UML, BUSYBOX];

/** Starts User-Mode Linux with one vhost-user device of the virtio id `device` at `socket`. */
export function startUml(rig: Rig, socket: string, device: number, files: GuestFiles): Program {
  const kernel = umlKernel();
  const initrd = rig.file('uml.initrd', initramfs(kernel, files));
  const virtio = `virtio_uml.device=${socket}:${device}`;
  // Not in the home folder, where it leaves traces when it is killed.
  const own = `uml_dir=${rig.path('uml')}`;
  const words = [
    'mem=256M',
    own,
    `initrd=${initrd}`,
    'rdinit=/init',
    virtio,
    'con=null',
    'con0=fd:0,fd:1',
    'quiet',
  ];
  return rig.start('uml', kernel.image, ...words);
}
