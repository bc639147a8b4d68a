// What a server offers: disks under names, and what clients are told of each (proto.md, "Transmission flags").

import {
  NBD_FLAG_CAN_MULTI_CONN,
  NBD_FLAG_HAS_FLAGS,
  NBD_FLAG_READ_ONLY,
  NBD_FLAG_SEND_FLUSH,
  NBD_FLAG_SEND_FUA,
  NBD_FLAG_SEND_TRIM,
  NBD_FLAG_SEND_WRITE_ZEROES,
  NBD_MAX_STRING,
} from '../abi/nbd.ts';
import type { GuestDisk } from '../drivers/disk.ts';
import { ByteDisk } from './byte-disk.ts';

/** A disk to offer. */
export interface NbdExport {
  /** What a client asks for: at most 4096 bytes of UTF-8 without NUL. */
  readonly name: string;
  /** A line for people, shown by `nbdinfo --list`; bounded like the name. */
  readonly description?: string;
  readonly disk: GuestDisk;
}

/** An export as connections serve it. */
export interface ServedExport {
  readonly name: string;
  readonly description: string;
  readonly disk: ByteDisk;
  /** Bytes. */
  readonly size: number;
  /** NBD_FLAG_* of the transmission phase. */
  readonly flags: number;
}

/** What a server offers now, in the order in which it was added. */
export class ServedExports {
  readonly #exports: ServedExport[] = [];

  /**
   * Adds an export. Throws RangeError on a name or description that the protocol cannot carry, and on a name that no
   * client could reach.
   */
  add({ name, description = '', disk }: NbdExport): void {
    checkString('name', name);
    checkString('description', description);
    if (this.#exports.some((other) => other.name === name))
      throw new RangeError(`NBD export ${JSON.stringify(name)}: the name is taken; expected different names`);
    if (name === '' && this.#exports.length > 0)
      throw new RangeError('NBD export "": the empty name always means the first export; name this one');
    // All clients of a disk share its lock.
    const bytes = this.#exports.find((other) => other.disk.disk === disk)?.disk ?? new ByteDisk(disk);
    const flags = transmissionFlags(disk);
    this.#exports.push({ name, description, disk: bytes, size: disk.capacity, flags });
  }

  /** Offers it no more; returns what it was, or undefined. Clients that have chosen it already keep it. */
  remove(name: string): ServedExport | undefined {
    const index = this.#exports.findIndex((each) => each.name === name);
    return index < 0 ? undefined : this.#exports.splice(index, 1)[0];
  }

  /** The export that a client means by `name`; the empty name is the first. */
  find(name: string): ServedExport | undefined {
    return name === '' ? this.#exports[0] : this.#exports.find((each) => each.name === name);
  }

  [Symbol.iterator](): Iterator<ServedExport> {
    return this.#exports[Symbol.iterator]();
  }
}

/** Exports for serving, in their order. Throws RangeError where `ServedExports.add` does, and when there are none. */
export function serveExports(exports: readonly NbdExport[]): ServedExports {
  if (exports.length === 0) throw new RangeError('NBD server: expected at least one export, got none');
  const served = new ServedExports();
  for (const each of exports) served.add(each);
  return served;
}

/**
 * All connections to a disk share it, so a flush on one covers all (CAN_MULTI_CONN). A disk that cannot
 * flush has no volatile cache: there is nothing that FLUSH or FUA would add.
 */
function transmissionFlags(disk: GuestDisk): number {
  let flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_CAN_MULTI_CONN;
  if (disk.canFlush) flags |= NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA;
  if (disk.readOnly) return flags | NBD_FLAG_READ_ONLY;
  if (disk.canDiscard) flags |= NBD_FLAG_SEND_TRIM;
  if (disk.canWriteZeroes) flags |= NBD_FLAG_SEND_WRITE_ZEROES;
  return flags;
}

function checkString(what: string, text: string): void {
  const bytes = Buffer.byteLength(text);
  if (bytes > NBD_MAX_STRING)
    throw new RangeError(`NBD export: a ${what} of ${bytes} bytes; expected at most ${NBD_MAX_STRING}`);
  if (text.includes('\0'))
    throw new RangeError(`NBD export: ${what} ${JSON.stringify(text)} has a NUL character; expected none`);
}
