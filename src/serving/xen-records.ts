// What a backend keeps in a folder for its successor: for each guest the number of its ioreq server, for each device a
// record that is mapped (kept-device.ts). The folder has to be one that a reboot of the host empties, such as in /run:
// ids of domains are given anew then. Before hosts/linux/xen/device-model.ts and kept-device.ts.

import { closeSync, fstatSync, ftruncateSync, mkdirSync, openSync, readdirSync } from 'node:fs';
import { readFileSync, renameSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Libc } from '../hosts/linux/libc.ts';
import { MemoryMap } from '../hosts/linux/memory-map.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import type { DeviceKeeper } from '../virtio/device-keeper.ts';
import type { DomainId } from '../xen/ids.ts';
import { KeptDevice, keptDeviceSize } from './kept-device.ts';

const SERVER = 'ioreq-server';

/** The records of one backend. */
export class XenRecords {
  readonly #libc: Libc;
  readonly #folder: string;

  /** Throws the system's error when the folder cannot be made. */
  constructor(libc: Libc, folder: string) {
    this.#libc = libc;
    this.#folder = folder;
    mkdirSync(folder, { recursive: true, mode: 0o700 });
  }

  /** Guests of which something was kept. */
  get guests(): number[] {
    return readdirSync(this.#folder)
      .filter((name) => /^\d+$/.test(name))
      .map(Number);
  }

  /** The number of a guest's ioreq server. */
  load(guest: DomainId): number | undefined {
    try {
      const text = readFileSync(join(this.#of(guest), SERVER), 'utf8');
      return /^\d{1,5}\n$/.test(text) ? Number(text) : undefined;
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  /** Keeps it; undefined when there is none any more. */
  save(guest: DomainId, id: number | undefined): void {
    const path = join(this.#of(guest), SERVER);
    if (id === undefined) {
      rmSync(path, { force: true });
      this.#tidy(guest);
      return;
    }
    mkdirSync(this.#of(guest), { recursive: true, mode: 0o700 });
    // Whole or not at all.
    writeFileSync(`${path}.new`, `${id}\n`, { mode: 0o600 });
    renameSync(`${path}.new`, path);
  }

  /**
   * The record of the device at `base` of a guest's address space. Throws an error, for people, when it is that of a
   * device which is not made as this one is.
   *
   * @param anew whether it is announced for the first time: what was kept is of another device
   */
  keeper(guest: DomainId, base: number, device: VirtioDevice, anew: boolean): DeviceKeeper {
    const path = join(this.#of(guest), `0x${base.toString(16)}`);
    mkdirSync(this.#of(guest), { recursive: true, mode: 0o700 });
    const length = keptDeviceSize(device.queueSizes);
    const map = this.#map(path, length, anew);
    return new KeptDevice(map.region, device, (forget) => {
      map.close();
      if (!forget) return;
      rmSync(path, { force: true });
      this.#tidy(guest);
    });
  }

  /** Forgets a guest that is no more. */
  forget(guest: number): void {
    rmSync(this.#of(guest), { recursive: true, force: true });
  }

  #of(guest: number): string {
    return join(this.#folder, `${guest}`);
  }

  #map(path: string, length: number, anew: boolean): MemoryMap {
    const fd = openSync(path, anew ? 'w+' : 'a+', 0o600);
    try {
      const { size } = fstatSync(fd);
      if (size !== 0 && size !== length)
        throw new Error(
          `${path} is the record of a device with other queues (${size} bytes, expected ${length}): start the backend ` +
            'as its predecessor was, or end the guest first',
        );
      ftruncateSync(fd, length);
      return MemoryMap.of(this.#libc, fd, 0, length, path);
    } finally {
      closeSync(fd);
    }
  }

  /** Removes the folder of a guest when nothing is in it any more. */
  #tidy(guest: number): void {
    try {
      rmdirSync(this.#of(guest));
    } catch (error) {
      if (!isMissing(error) && !isOccupied(error)) throw error;
    }
  }
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT';
}

function isOccupied(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ENOTEMPTY' || error.code === 'EEXIST');
}
