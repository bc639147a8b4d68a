// What is on the disks of the peer tests: bytes of which no two blocks are alike, and a file system of files.

import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Peer } from './peer.ts';

/** Size of the file systems, in bytes. */
export const EXT4_SIZE = 12 * 2 ** 20;

/** `length` bytes, the same ones each time for a `seed` other than 0 (Marsaglia's xorshift). */
export function seededBytes(length: number, seed: number): Buffer {
  const words = new Uint32Array(Math.ceil(length / 4));
  let state = seed;
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[i] = state;
  }
  return Buffer.from(words.buffer, 0, length);
}

/** The SHA-256 of a file. */
export function sha256(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}

/** Files by their path below the root of the file system. */
const FILES: ReadonlyMap<string, Buffer> = new Map([
  ['empty', Buffer.alloc(0)],
  ['one-byte', seededBytes(1, 1)],
  ['a-sector-less-one', seededBytes(511, 2)],
  ['a-page', seededBytes(4096, 3)],
  ['folder/odd', seededBytes(70_001, 4)],
  ['folder/deep/er/large', seededBytes(5 * 2 ** 20 + 13, 5)],
  ['zeroes', Buffer.alloc(300_000)],
  [`${'long-'.repeat(40)}name`, seededBytes(12_345, 6)],
]);

/** Makes an ext4 image of the files with mke2fs. Returns its path. */
export async function ext4Image(peer: Peer, name: string): Promise<string> {
  const tree = peer.path(`${name}.tree`);
  mkdirSync(join(tree, 'folder', 'deep', 'er'), { recursive: true });
  for (const [path, content] of FILES) writeFileSync(join(tree, path), content);
  symlinkSync('folder/deep/er/large', join(tree, 'link'));
  const image = peer.blank(name, EXT4_SIZE);
  await peer.run('mke2fs', '-q', '-F', '-t', 'ext4', '-d', tree, image);
  return image;
}

/** Names of the files that an ext4 image does not hold with their right content. */
export async function wrongFiles(peer: Peer, image: string): Promise<string[]> {
  const tree = `${image}.dumped`;
  mkdirSync(tree);
  await peer.run('debugfs', '-R', `rdump / ${tree}`, image);
  return [...FILES].flatMap(([path, content]) =>
    readFileSync(join(tree, path)).equals(content) ? [] : path,
  );
}
