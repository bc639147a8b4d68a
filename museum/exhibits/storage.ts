// Disks that lose what they said was safe: found by cutting the power at every event (docs/crash-consistency.md).

import type { Exhibit } from '../exhibit.ts';

const POWER_CUTS = 'test/machine/power-cuts.test.ts';

export const STORAGE: readonly Exhibit[] = [
  {
    id: 'C8/flush',
    what: 'A flush is answered and not done, as in virtual machines that are set to ignore them.',
    file: 'src/devices/blk.ts',
    find: 'return this.#after(request, this.#store.flush(request));',
    replace: 'return VIRTIO_BLK_S_OK;',
    tests: [POWER_CUTS],
    titles: /C8 a power cut at any event/,
  },
  {
    id: 'C8/early',
    what: 'A write is answered while its data are still in a buffer that no flush knows of.',
    file: 'src/devices/blk.ts',
    find: 'return this.#after(request, this.#store.write(offset, data, request));',
    replace: `this.late?.();
    const copy = new Uint8Array(data.byteLength);
    data.copyTo(copy, 0, copy.length);
    const later = new data.constructor();
    later.push({ u8: copy }, 0, copy.length);
    this.late = () => this.#store.write(offset, later);
    return VIRTIO_BLK_S_OK;`,
    tests: [POWER_CUTS],
    titles: /C8 a power cut at any event/,
  },
  {
    id: 'C8/write-through',
    what: 'A driver that cannot flush is answered before its write is stable.',
    file: 'src/devices/blk.ts',
    find: 'request.mustFlush = this.#writeThrough;',
    replace: '',
    tests: [POWER_CUTS],
    titles: /C8 a driver without/,
  },
  {
    id: 'C8/flush-first',
    what: 'For a driver that cannot flush, the device flushes before the write and not after it.',
    file: 'src/devices/blk.ts',
    find: 'request.mustFlush = this.#writeThrough;',
    replace: 'if (this.#writeThrough) this.#store.flush(request);',
    tests: [POWER_CUTS],
    titles: /C8 a driver without/,
  },
  {
    id: 'C8/zeroes',
    what: 'Writes are made stable for a driver that cannot flush, zeroes are forgotten.',
    file: 'src/devices/blk.ts',
    find: 'request.mustFlush = this.#writeThrough && !discard;',
    replace: '',
    tests: [POWER_CUTS],
    titles: /C8 a driver without/,
  },
  {
    id: 'fsyncgate',
    what: 'After a failed fdatasync the next one is believed, though the kernel has dropped the data.',
    file: 'src/storage/image.ts',
    find: "if (result !== 'ok') this.#untrusted = true;",
    replace: '',
    tests: [POWER_CUTS],
    titles: /C8 R1 R3 .* with flush/,
  },
  {
    id: 'host-R3/short-write',
    what: 'A system call that moved less than it was asked to is taken for done.',
    file: 'src/storage/raw-file.ts',
    find: 'skip += moved;\n      done += moved;',
    replace: 'skip = length;\n      done += length;',
    tests: [POWER_CUTS],
    titles: /C8 R3 a raw image/,
  },
  {
    id: 'host-R5/grown-again',
    what: 'An image that became shorter and longer again is flushed as if nothing had been lost.',
    file: 'src/storage/image.ts',
    find: "this.#untrusted = true;\n    return 'EIO';",
    replace: "return 'EIO';",
    tests: ['test/adversary/raw-file.test.ts'],
    titles: /R5/,
  },
];
