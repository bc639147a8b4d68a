// All implementations of the port BlockStore run the contract.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LossyStore } from '../../src/storage/lossy-store.ts';
import { MemoryStore } from '../../src/storage/memory-store.ts';
import { RawFile } from '../../src/storage/raw-file.ts';
import { blockStoreContract } from './block-store.ts';

blockStoreContract('MemoryStore', (bytes, readOnly) => ({
  store: new MemoryStore(bytes, readOnly),
  contents: () => bytes.slice(),
  remove: () => undefined,
}));

blockStoreContract('LossyStore', (bytes, readOnly) => {
  const store = new LossyStore(bytes, readOnly);
  return { store, contents: () => store.bytes.slice(), remove: () => undefined };
});

blockStoreContract('RawFile', (bytes, readOnly) => {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-'));
  const path = join(folder, 'disk.img');
  writeFileSync(path, bytes);
  return {
    store: new RawFile(path, readOnly),
    contents: () => new Uint8Array(readFileSync(path)),
    remove: () => rmSync(folder, { recursive: true }),
  };
});
