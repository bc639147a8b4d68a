// All implementations of the port BlockStore run the contract.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Region } from '../../src/abi/region.ts';
import { IoUring } from '../../src/hosts/linux/io-uring.ts';
import { UringImage } from '../../src/hosts/linux/uring-image.ts';
import { imageHost, memoryOf, native, uring } from '../../src/hosts/linux/native.test.helper.ts';
import { MappedImage } from '../../src/hosts/linux/mapped-image.ts';
import { VectoredImage } from '../../src/hosts/linux/vectored-image.ts';
import type { BlockStore } from '../../src/storage/block-store.ts';
import { LossyStore } from '../../src/storage/lossy-store.ts';
import { MemoryStore } from '../../src/storage/memory-store.ts';
import { RawFile } from '../../src/storage/raw-file.ts';
import { blockStoreContract, type StoreUnderTest } from './block-store.ts';

blockStoreContract('MemoryStore', (bytes, readOnly) => ({
  store: new MemoryStore(bytes, readOnly),
  contents: () => bytes.slice(),
  remove: () => undefined,
}));

blockStoreContract('LossyStore', (bytes, readOnly) => {
  const store = new LossyStore(bytes, readOnly);
  return { store, contents: () => store.bytes.slice(), remove: () => undefined };
});

/** A store on an image file. */
function onFile(bytes: Uint8Array, open: (path: string) => BlockStore, memory?: Region): StoreUnderTest {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-'));
  const path = join(folder, 'disk.img');
  writeFileSync(path, bytes);
  return {
    store: open(path),
    contents: () => new Uint8Array(readFileSync(path)),
    remove: () => rmSync(folder, { recursive: true }),
    ...(memory === undefined ? {} : { memory }),
  };
}

blockStoreContract('RawFile', (bytes, readOnly) => onFile(bytes, (path) => new RawFile(path, readOnly)));

const host = native.skip === false ? imageHost() : undefined;
if (host === undefined) test('the images of hosts/linux', native);
else {
  const guest = memoryOf(host, 64 * 1024);
  for (const direct of [false, true]) {
    const how = direct ? 'past the page cache' : 'through the page cache';
    blockStoreContract(`VectoredImage, ${how}`, (bytes, readOnly) =>
      onFile(bytes, (path) => new VectoredImage(host, path, { readOnly, direct }), guest),
    );
    blockStoreContract(`VectoredImage, ${how}, memory that the kernel cannot reach`, (bytes, readOnly) =>
      onFile(bytes, (path) => new VectoredImage(host, path, { readOnly, direct })),
    );
  }
  if (uring.skip !== false) test('the image of io_uring', uring);
  else {
    const ring = new IoUring(host.libc, host.arena);
    for (const direct of [false, true]) {
      const how = direct ? 'past the page cache' : 'through the page cache';
      blockStoreContract(`UringImage, ${how}`, (bytes, readOnly) =>
        onFile(bytes, (path) => new UringImage(host, ring, path, { readOnly, direct }), guest),
      );
    }
  }
  blockStoreContract('MappedImage', (bytes, readOnly) =>
    onFile(bytes, (path) => new MappedImage(host, path, readOnly)),
  );
}
