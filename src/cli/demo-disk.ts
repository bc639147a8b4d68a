// The demonstration's disk: made when the user gave none, and removed afterwards.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const SIZE = 128 * 2 ** 20;

/** A disk image in a temporary folder. */
export interface DemoDisk {
  readonly path: string;
  remove(): void;
}

/** Makes an image in which no two sectors are alike, so that a wrong byte anywhere shows. */
export function createDemoDisk(): DemoDisk {
  const words = new Uint32Array(SIZE / 4);
  let state = 0x9e3779b9;
  for (let i = 0; i < words.length; i++) {
    // Marsaglia's xorshift: fast, and its period is longer than the disk.
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[i] = state;
  }
  const folder = mkdtempSync(join(tmpdir(), 'grantio-'));
  const remove = () => rmSync(folder, { recursive: true, force: true });
  const path = join(folder, 'demo.img');
  try {
    writeFileSync(path, words);
  } catch (error) {
    remove();
    throw new Error(
      `the demonstration disk of ${SIZE} bytes cannot be written to ${folder}: ${(error as Error).message}`,
    );
  }
  return { path, remove };
}
