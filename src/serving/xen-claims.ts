// Which process serves which guest: a word for each domain in a file of the folder in which devices are kept. The word is
// locked by the process that serves the guest, and has its number for whoever comes second. Used by xen-records.ts.
//
// The system drops the locks of a process that is killed, so that its successor need not wait; and the file is never
// removed, so that there cannot be two of it.

import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs';
import type { Arena } from '../hosts/linux/arena.ts';
import { type FileRange, lockFile, unlockFile } from '../hosts/linux/file-lock.ts';
import type { Libc } from '../hosts/linux/libc.ts';

const WORD = 4;
const { O_RDWR, O_CREAT } = constants;

/** Who has what was asked for. */
export interface Claimant {
  /** Its process; 0 if that is not known. */
  readonly pid: number;
}

/** The claims of one backend. */
export class XenClaims {
  readonly #libc: Libc;
  readonly #arena: Arena;
  readonly #path: string;
  readonly #fd: number;
  readonly #held = new Set<number>();

  /** Throws the system's error when the file cannot be opened. */
  constructor(libc: Libc, arena: Arena, path: string) {
    this.#libc = libc;
    this.#arena = arena;
    this.#path = path;
    this.#fd = openSync(path, O_RDWR | O_CREAT, 0o600);
  }

  /**
   * Claims a domain, which may be one's own already.
   *
   * @returns who has it, if that is somebody else
   * @throws Error, for people, where the file system has no locks
   */
  claim(domain: number): Claimant | undefined {
    if (this.#held.has(domain)) return undefined;
    const result = lockFile(this.#libc, this.#arena, this.#fd, 'exclusive', rangeOf(domain));
    if (result === 'held') return { pid: this.#claimant(domain) };
    if (result === 'unavailable')
      throw new Error(`${this.#path} cannot be locked: choose a --state folder in /run, or --state none`);
    this.#held.add(domain);
    this.#note(domain, process.pid);
    return undefined;
  }

  /** Gives a domain up, if it was one's own. */
  release(domain: number): void {
    if (!this.#held.delete(domain)) return;
    this.#note(domain, 0);
    unlockFile(this.#libc, this.#arena, this.#fd, rangeOf(domain));
  }

  /** Gives all of them up, as the end of the process does. */
  close(): void {
    closeSync(this.#fd);
  }

  #claimant(domain: number): number {
    const word = Buffer.alloc(WORD);
    readSync(this.#fd, word, 0, WORD, rangeOf(domain).start);
    return word.readUInt32LE();
  }

  #note(domain: number, pid: number): void {
    const word = Buffer.alloc(WORD);
    word.writeUInt32LE(pid);
    writeSync(this.#fd, word, 0, WORD, rangeOf(domain).start);
  }
}

function rangeOf(domain: number): FileRange {
  return { start: domain * WORD, length: WORD };
}
