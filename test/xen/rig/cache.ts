// What takes long to build is kept in the user's cache, in folders named after a digest of all that went into them.
// A folder is built beside its place and moved there when it is complete, so that nobody sees a part of one; that all
// of it is still there is seen from a list of its files.

import { createHash } from 'node:crypto';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { Steps } from './steps.ts';

/** The list of a folder's files and their sizes; it is written last. */
const LIST = 'complete.json';

/** Where the rig keeps what it built. */
export function cacheFolder(): string {
  const base = process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache');
  const folder = join(base, 'grantio', 'xen');
  mkdirSync(folder, { recursive: true });
  return folder;
}

/** A name for what is made of `inputs`. */
export function digest(inputs: readonly (string | Uint8Array)[]): string {
  const hash = createHash('sha256');
  for (const input of inputs) hash.update(`${input.length}:`).update(input);
  return hash.digest('hex').slice(0, 16);
}

/**
 * The folder of `kind` that is made of `inputs`. If there is none, or not all of it, `build` fills a new one, whose
 * path it gets; what it does in `steps` is logged beside the folder.
 */
export async function cached(
  kind: string,
  inputs: readonly (string | Uint8Array)[],
  build: (folder: string, steps: Steps) => Promise<void>,
): Promise<string> {
  const folder = join(cacheFolder(), `${kind}-${digest(inputs)}`);
  if (isComplete(folder)) return folder;
  const log = `${folder}.log`;
  writeFileSync(log, '');
  const unfinished = unfinishedFolder(kind);
  try {
    await build(unfinished, new Steps(log));
    writeFileSync(join(unfinished, LIST), JSON.stringify(sizes(unfinished)));
    rmSync(folder, { recursive: true, force: true });
    renameSync(unfinished, folder);
  } finally {
    rmSync(unfinished, { recursive: true, force: true });
  }
  return folder;
}

/** A folder to build in. Those of builds that were killed are removed. */
function unfinishedFolder(kind: string): string {
  const cache = cacheFolder();
  for (const name of readdirSync(cache)) {
    const builder = /^building-(\d+)-/.exec(name);
    if (builder && !isRunning(Number(builder[1])))
      rmSync(join(cache, name), { recursive: true, force: true });
  }
  return mkdtempSync(join(cache, `building-${process.pid}-${kind}-`));
}

/** Whether there is a process of this number. */
export function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}

function isComplete(folder: string): boolean {
  try {
    const listed: unknown = JSON.parse(readFileSync(join(folder, LIST), 'utf8'));
    return JSON.stringify(listed) === JSON.stringify(sizes(folder));
  } catch {
    return false;
  }
}

function sizes(folder: string): Record<string, number> {
  const names = readdirSync(folder)
    .filter((name) => name !== LIST)
    .sort();
  return Object.fromEntries(names.map((name) => [name, statSync(join(folder, name)).size]));
}
