// Images of suspended domains in files. An image is written beside its place first, so that a file with that name is
// always whole. After hosts/model/domain-image.ts.

import { closeSync, fsyncSync, openSync, readSync, renameSync, rmSync, writeSync } from 'node:fs';

const READ_SIZE = 2 ** 20;

/**
 * Writes the pieces of an image (Xen.saveDomain) to a file, in place of what was there.
 *
 * @throws Error of the file system, and then there is no new file
 */
export function writeDomainFile(path: string, pieces: Iterable<Uint8Array>): void {
  const unfinished = `${path}.unfinished`;
  const file = openSync(unfinished, 'w');
  try {
    for (const piece of pieces)
      for (let at = 0; at < piece.length; ) at += writeSync(file, piece, at, piece.length - at);
    fsyncSync(file);
    renameSync(unfinished, path);
  } catch (error) {
    rmSync(unfinished, { force: true });
    throw error;
  } finally {
    closeSync(file);
  }
}

/** The pieces of an image in a file, for Xen.restoreDomain. Throws an Error of the file system. */
export function* readDomainFile(path: string): Generator<Uint8Array> {
  const file = openSync(path, 'r');
  try {
    for (;;) {
      const piece = new Uint8Array(READ_SIZE);
      const length = readSync(file, piece);
      if (length === 0) return;
      yield piece.subarray(0, length);
    }
  } finally {
    closeSync(file);
  }
}
