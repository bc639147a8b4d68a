// What a vhost-user session asks of this machine, through koffi: mappings of the frontend's files, files of our own,
// and writing to descriptors. Implements the port transports/vhost-user/platform.ts.

import { fstatSync, statfsSync } from 'node:fs';
import type { Arena, Scratch } from '../hosts/linux/arena.ts';
import type { Libc } from '../hosts/linux/libc.ts';
import { MemoryMap } from '../hosts/linux/memory-map.ts';
import { sealedFile } from '../hosts/linux/sealed-file.ts';
import type { MappedFile, VhostPlatform, XenMemory } from '../transports/vhost-user/platform.ts';

const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const F_GET_SEALS = 1034;
const F_SEAL_SHRINK = 2;
const HUGETLBFS_MAGIC = 0x958458f6;
/** Longest message that we send of ourselves. */
const MESSAGE = 256;

/** How a session's platform is made. */
export interface PlatformParts {
  readonly libc: Libc;
  readonly arena: Arena;
  /**
   * Whether memory is refused that its owner can shrink under our feet, which would end this process with SIGBUS
   * (cases T5, R7). Where the process serves nobody else, it is only that owner's own loss.
   */
  readonly sealed: boolean;
  /** Adds one to an eventfd of the frontend's, without waiting for it. */
  readonly signal: (fd: number) => void;
}

/** The machine as one session sees it. */
export class LinuxPlatform implements VhostPlatform {
  readonly #libc: Libc;
  readonly #sealed: boolean;
  readonly #signal: (fd: number) => void;
  readonly #message: Scratch;
  /** Mappings that have not ended. */
  #mappings = 0;
  #mappedBytes = 0;

  constructor({ libc, arena, sealed, signal }: PlatformParts) {
    this.#libc = libc;
    this.#sealed = sealed;
    this.#signal = signal;
    this.#message = arena.take(MESSAGE);
  }

  get mappings(): number {
    return this.#mappings;
  }

  /** Their bytes. */
  get mappedBytes(): number {
    return this.#mappedBytes;
  }

  map(fd: number, offset: number, length: number, xen?: XenMemory): MappedFile {
    if (xen !== undefined) throw new Error('memory of a Xen domain: this machine maps files only');
    // First: files without seals may be of a driver that does not answer.
    if (this.#sealed) this.#refuseUnsafe(fd);
    const { size } = fstatSync(fd);
    if (offset + length > size)
      throw new Error(
        `${length} bytes from ${offset} of a file that has ${size}: the mapping would end behind it`,
      );
    const map = MemoryMap.of(this.#libc, fd, offset, length, "the frontend's memory");
    this.#mappings++;
    this.#mappedBytes += length;
    return {
      region: map.region,
      close: () => {
        map.close();
        this.#mappings--;
        this.#mappedBytes -= length;
      },
    };
  }

  createFile(length: number): number {
    const about = `a buffer of ${length} bytes for requests under way`;
    return sealedFile(this.#libc, 'grantio-inflight', length, about);
  }

  close(fd: number): void {
    this.#libc.close(fd);
  }

  signal(fd: number): void {
    this.#signal(fd);
  }

  send(fd: number, bytes: Uint8Array): boolean {
    const { u8, address } = this.#message;
    u8.set(bytes);
    return this.#libc.send(fd, address, bytes.length, MSG_NOSIGNAL | MSG_DONTWAIT) === bytes.length;
  }

  /** Throws for memory of which pages can go away that nothing can bring back. */
  #refuseUnsafe(fd: number): void {
    const seals = this.#libc.fcntl(fd, F_GET_SEALS, 0);
    if (seals < 0 || (seals & F_SEAL_SHRINK) === 0)
      throw new Error(
        'the file can shrink, which would end this process for its other guests: seal it with F_SEAL_SHRINK ' +
          '(QEMU: memory-backend-memfd with seal=on), or serve the device in a process of its own',
      );
    // A hole in one is filled from the pool of huge pages, which its owner can have emptied meanwhile.
    if (statfsSync(`/proc/self/fd/${fd}`).type === HUGETLBFS_MAGIC)
      throw new Error(
        'huge pages can run out, which would end this process for its other guests: use small pages, or serve the ' +
          'device in a process of its own',
      );
  }
}
