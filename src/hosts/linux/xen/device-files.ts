// Opens the devices through which a Linux domain reaches its Xen, and says what to do where there are none.
// Before gntdev.ts, evtchn.ts, privcmd.ts and store.ts.

import { constants } from 'node:os';
import type { Libc } from '../libc.ts';

const O_RDWR = 2;
const O_NONBLOCK = 0x800;
const O_CLOEXEC = 0x80000;
const { ENOENT, ENODEV, ENXIO, EACCES, EPERM } = constants.errno;

/** This program cannot reach a Xen; the message is one sentence that says what is missing and what to do. */
export class XenUnavailable extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'XenUnavailable';
  }
}

/** The devices, and the module of Linux that makes each. */
const modules = {
  '/dev/xen/gntdev': 'xen-gntdev',
  '/dev/xen/gntalloc': 'xen-gntalloc',
  '/dev/xen/evtchn': 'xen-evtchn',
  '/dev/xen/privcmd': 'xen-privcmd',
  '/dev/xen/hypercall': 'xen-privcmd',
} as const;

/** Opens one; reading it does not block. Throws XenUnavailable. */
export function openXenDevice(libc: Libc, path: keyof typeof modules): number {
  const fd = libc.open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC, 0);
  if (fd >= 0) return fd;
  throw new XenUnavailable(`${path} ${whyNot(libc.errno(), modules[path])}`);
}

function whyNot(errno: number, module: string): string {
  switch (errno) {
    case ENOENT:
      return `is not there: this has to be a domain of Xen, with the module loaded (modprobe ${module})`;
    case ENODEV:
    case ENXIO:
      return 'is there, but this kernel does not run under Xen';
    case EACCES:
    case EPERM:
      return 'may not be opened: run this as root';
    default:
      return `cannot be opened (errno ${errno})`;
  }
}
