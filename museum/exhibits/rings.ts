// Virtqueues and devices, from both sides: a driver that lies to the device, and a device that lies to the driver.

import type { Exhibit } from '../exhibit.ts';

export const RINGS: readonly Exhibit[] = [
  {
    id: 'XSA-155/descriptor',
    what: 'A descriptor is checked in shared memory, then read there again.',
    file: 'src/virtqueue/chain-reader.ts',
    find: 'this.#append(low, high, len,',
    replace: 'this.#append(low, high, table.len(index),',
    tests: ['test/adversary/changing-memory.test.ts'],
  },
  {
    id: 'XSA-155/ranges',
    what: 'The ranges of a discard are checked, then read again out of the buffer.',
    file: 'src/devices/blk.ts',
    find: 'const index = request.nextRange++;',
    replace: `const index = request.nextRange++;
    request.chain.readable.copyTo(this.#ranges, HEADER_SIZE, request.ranges * virtioBlkRange.size);
    const again = virtioBlkRange.over(this.#ranges).at(index * virtioBlkRange.size);
    request.offsets[index] = again.sector * SECTOR_SIZE;
    request.lengths[index] = again.num_sectors * SECTOR_SIZE;`,
    tests: ['test/adversary/changing-memory.test.ts'],
  },
  {
    id: 'XSA-155/used-length',
    what: 'The driver checks the length of a used element, then reads it again.',
    file: 'src/virtqueue/driver-queue.ts',
    find: 'this.lastLength = Math.min(length, this.#writableBytes[head]);',
    replace:
      'this.lastLength = length > this.#writableBytes[head] ? this.#writableBytes[head] : this.#used.len(this.#nextUsed - 1);',
    tests: ['test/adversary/changing-used-ring.test.ts'],
  },
  {
    id: 'XSA-155/used-id',
    what: 'The driver checks the id of a used element, then reads it again.',
    file: 'src/virtqueue/driver-queue.ts',
    find: 'return this.#takeBack(head);\n  }\n\n  /** No interrupts',
    replace: 'return this.#takeBack(this.#used.id(this.#nextUsed - 1));\n  }\n\n  /** No interrupts',
    tests: ['test/adversary/changing-used-ring.test.ts'],
  },
  {
    id: 'B6',
    what: 'The driver follows the next field of a descriptor that the device can write to.',
    file: 'src/virtqueue/driver-queue.ts',
    find: 'i < count; i++, index = this.#next[index])',
    replace: 'i < count; i++, index = this.#descriptors.next(index))',
    tests: ['test/adversary/used-ring.test.ts'],
  },
  {
    id: 'CVE-2021-38160',
    what: 'The driver believes a used length that is larger than its buffer.',
    file: 'src/virtqueue/driver-queue.ts',
    find: 'this.lastLength = Math.min(length, this.#writableBytes[head]);',
    replace: 'this.lastLength = length;',
    tests: ['test/adversary/rng-driver.test.ts'],
    error: 'offset is out of bounds',
  },
  {
    id: 'CVE-2021-3748',
    what: 'The device writes its status after it has let go of the page that it belongs into.',
    file: 'src/devices/blk.ts',
    find: 'return queue.complete(chain, readable.byteLength, length, STATUS_SIZE) >= 0;',
    replace: `const piece = writable.count - 1;
    const region = writable.regions[piece];
    const place = writable.offsets[piece] + writable.lengths[piece] - 1;
    region.u8[place] = 0xff;
    queue.complete(chain, readable.byteLength, length, STATUS_SIZE);
    region.u8[place] = status;
    return true;`,
    tests: ['test/adversary/completion-order.test.ts'],
  },
  {
    id: 'e25879c',
    what: 'The device reports a request complete before it unmaps its buffers.',
    file: 'src/virtqueue/device-queue.ts',
    find: `    chain.fault = chain.access.release(bytesRead, written, atEnd);
    if (chain.fault !== 0) {
      if (fault === 0) this.meter?.refused();
      return chain.fault;
    }
    chain.inFlight = false;
    this.#inFlight--;
    // Whoever sees the request completed sees it counted.
    this.meter?.completed(chain.head, chain.type, chain.status, bytesRead, written);
    this.#used.setElement(this.#nextUsed, chain.head, written);
    this.#nextUsed = (this.#nextUsed + 1) & 0xffff;
    this.#journal?.completing(chain.head);
    this.#used.index = this.#nextUsed;
`,
    replace: `    chain.inFlight = false;
    this.#inFlight--;
    this.#used.setElement(this.#nextUsed, chain.head, written);
    this.#nextUsed = (this.#nextUsed + 1) & 0xffff;
    this.#used.index = this.#nextUsed;
    chain.fault = chain.access.release(bytesRead, written, atEnd);
`,
    tests: ['test/adversary/completion-order.test.ts'],
  },
  {
    id: 'CVE-2019-14835',
    also: ['CVE-2016-7422'],
    what: 'The lengths of a chain are added up until the sum wraps.',
    file: 'src/virtqueue/chain-reader.ts',
    find: 'this.byteLength += len;',
    replace: 'this.byteLength = (this.byteLength + len) >>> 0;',
    tests: ['test/adversary/chains.test.ts'],
  },
  {
    id: 'CVE-2016-6490',
    what: 'Empty descriptors do not count as steps, so a loop of them never ends.',
    file: 'src/virtqueue/chain-reader.ts',
    find: 'if (flags & VIRTQ_DESC_F_INDIRECT) return',
    replace: `if (len === 0 && flags & VIRTQ_DESC_F_NEXT) {
        index = next;
        steps--;
        continue;
      }
      if (flags & VIRTQ_DESC_F_INDIRECT) return`,
    tests: ['test/adversary/chains.test.ts'],
    titles: /F3 F5/,
    hangs: true,
  },
  {
    id: 'CVE-2016-5403',
    what: 'A driver may have more requests in flight than its queue has room for.',
    file: 'src/virtqueue/device-queue.ts',
    find: 'if (pending > this.size)',
    replace: 'if (pending > 0xffff)',
    tests: ['test/adversary/indices.test.ts'],
    titles: /F7 an available/,
  },
  {
    id: 'CVE-2019-3900',
    what: 'A ring that its driver refills for ever is served for ever, and nothing else is.',
    file: 'src/virtio/serve-turn.ts',
    find: 'if (left <= 0) return 0;',
    replace: '',
    tests: ['test/adversary/indices.test.ts'],
    titles: /F25 a ring/,
    hangs: true,
  },
  {
    id: 'CVE-2026-5747',
    what: 'Registers of a queue can be written while the queue is in use.',
    file: 'src/virtio/device-state.ts',
    find: 'return !queue.enabled && (queue.wasReset || (this.#status & VIRTIO_STATUS_DRIVER_OK) === 0);',
    replace: 'return queue !== undefined;',
    tests: ['test/adversary/queue-setup.test.ts'],
    titles: /F21/,
  },
  {
    id: 'CVE-2022-26354',
    what: 'A request whose buffer cannot be mapped is never returned to the driver.',
    file: 'src/devices/blk.ts',
    find: 'if (queue.complete(chain, 0, 0, answers ? STATUS_SIZE : 0) < 0) queue.complete(chain, 0, 0);',
    replace: '',
    tests: ['test/adversary/refused-buffers.test.ts'],
  },
  {
    id: 'XSA-216',
    also: ['CVE-2018-1118'],
    what: 'A response claims bytes that the backend has not written.',
    file: 'src/devices/blk.ts',
    find: 'data === dataRoom ? writable.byteLength : Math.min(data, dataRoom)',
    replace: 'writable.byteLength',
    tests: ['test/conformance/blk-device.test.ts'],
  },
  {
    id: 'XSA-216/padding',
    what: 'The rest of a field behind a short answer is not written.',
    file: 'src/devices/blk.ts',
    find: 'writable.setByte(at, 0);',
    replace: '',
    tests: ['test/conformance/blk-device.test.ts'],
  },
  {
    id: 'QEMU/exit-on-map-failure',
    what: 'A backend ends when a guest names a reference that it has not granted.',
    file: 'src/memory/grant-memory.ts',
    find: 'else this.#drop();',
    replace: "else throw new Error('exit: a reference cannot be mapped');",
    tests: ['test/adversary/addresses.test.ts'],
    error: 'exit: a reference cannot be mapped',
  },
  {
    id: 'QEMU/bfa3f55f0f',
    what: 'A page that the device is only to read is mapped for writing.',
    file: 'src/memory/grant-memory.ts',
    find: 'mapper.mapPages(owner, this.#readablePages, true)',
    replace: 'mapper.mapPages(owner, this.#readablePages, false)',
    tests: ['test/adversary/chains.test.ts'],
    titles: /F17/,
  },
  {
    id: 'G4',
    what: 'Bits 44 to 62 of an address are ignored, so that many addresses name one byte.',
    file: 'src/abi/grant-address.ts',
    find: 'return (high & ~REFERENCE_HIGH_MASK) >>> 0 === GRANT_BIT;',
    replace: 'return (high & GRANT_BIT) !== 0;',
    tests: ['src/abi/grant-address.test.ts'],
  },
];
