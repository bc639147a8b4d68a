// What a backend keeps in a folder for its successor: for each guest the number of its ioreq server, for each device a
// record that is mapped (kept-device.ts). The folder has to be one that a reboot of the host empties, such as in /run:
// ids of domains are given anew then. Before hosts/linux/xen/device-model.ts, kept-device.ts and xen-claims.ts.
//
// Several backends may share the folder. A guest is claimed before anything is kept of it, and as long as anything is:
// two that serve one guest would take the same ioreq server for a dead predecessor's.

import { closeSync, fstatSync, ftruncateSync, mkdirSync, openSync, readdirSync } from 'node:fs';
import { readFileSync, renameSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DOMID_SELF } from '../abi/xen.ts';
import type { Arena } from '../hosts/linux/arena.ts';
import type { Libc } from '../hosts/linux/libc.ts';
import { MemoryMap } from '../hosts/linux/memory-map.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import type { DeviceKeeper } from '../virtio/device-keeper.ts';
import type { DomainId } from '../xen/ids.ts';
import { KeptDevice, keptDeviceSize } from './kept-device.ts';
import { type Claimant, XenClaims } from './xen-claims.ts';

const SERVER = 'ioreq-server';
const CLAIMS = 'claims';
/** What is announced to the domain in which the backend runs is claimed in the place of a guest that cannot be. */
const ANNOUNCEMENTS = DOMID_SELF;

/** The records of one backend. */
export class XenRecords {
  readonly #libc: Libc;
  readonly #folder: string;
  readonly #claims: XenClaims;

  /** Throws the system's error when the folder cannot be made. */
  constructor(libc: Libc, arena: Arena, folder: string) {
    this.#libc = libc;
    this.#folder = folder;
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    this.#claims = new XenClaims(libc, arena, join(folder, CLAIMS));
  }

  /** Claims a guest until nothing is kept of it, or the process ends. Throws an error, for people, when another has. */
  claim(guest: DomainId): void {
    const claimant = this.#claims.claim(guest);
    if (claimant === undefined) return;
    throw new Error(
      `domain ${guest} is served by ${this.#words(claimant)}: end that first; all devices of a guest are served by one ` +
        'backend',
    );
  }

  /** Claims what xenstore announces to this domain, until the process ends. Throws an error, for people, as above. */
  claimAnnouncements(): void {
    const claimant = this.#claims.claim(ANNOUNCEMENTS);
    if (claimant === undefined) return;
    throw new Error(
      `the devices that xenstore announces are served by ${this.#words(claimant)}: one backend serves those of all ` +
        'guests; end that first',
    );
  }

  /** Gives a guest up if nothing is kept of it. */
  release(guest: DomainId): void {
    try {
      rmdirSync(this.#of(guest));
    } catch (error) {
      if (isOccupied(error)) return;
      if (!isMissing(error)) throw error;
    }
    this.#claims.release(guest);
  }

  /** Ends this backend's claims: its ioreq servers are in nobody's hands any more. */
  close(): void {
    this.#claims.close();
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
      this.release(guest);
      return;
    }
    mkdirSync(this.#of(guest), { recursive: true, mode: 0o700 });
    // Whole or not at all.
    writeFileSync(`${path}.new`, `${id}\n`, { mode: 0o600 });
    renameSync(`${path}.new`, path);
  }

  /**
   * The record of the device at `base` of the address space of a guest that was claimed. Throws an error, for people,
   * when it is that of a device which is not made as this one is.
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
      this.release(guest);
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

  #words({ pid }: Claimant): string {
    const process = pid === 0 ? '' : ` (process ${pid})`;
    return `another grantio xen-backend${process} that keeps its devices in ${this.#folder}, too`;
  }
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT';
}

function isOccupied(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ENOTEMPTY' || error.code === 'EEXIST');
}
