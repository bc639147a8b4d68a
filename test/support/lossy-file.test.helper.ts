// A host under raw-file.ts that loses power, and on which any system call can go wrong: the calls of node:fs are
// answered from memory, and what a power cut may leave of the file is in a log.

import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import type { TestContext } from 'node:test';
import { SECTOR, WriteLog } from '../../src/storage/write-log.ts';

/** How likely it is that a call goes wrong, in each way. */
export interface FaultRates {
  /** It is interrupted, or has to be repeated (EINTR, EAGAIN). */
  readonly interrupted?: number;
  /** It moves less than it was asked to, in whole sectors. */
  readonly short?: number;
  /** It fails with EIO or ENOSPC. */
  readonly failed?: number;
  /** An fdatasync fails with EIO. */
  readonly sync?: number;
}

function systemError(code: string): Error {
  return Object.assign(new Error(`${code}: made up`), { code });
}

/** A file's bytes in the page cache, and its disk. */
export class LossyFile {
  readonly bytes: Uint8Array;
  readonly log: WriteLog;
  /** Calls that went wrong. */
  faults = 0;
  readonly #rates: FaultRates;
  readonly #random: () => number;

  constructor(bytes: Uint8Array, rates: FaultRates, random: () => number) {
    this.bytes = bytes;
    this.log = new WriteLog(bytes);
    this.#rates = rates;
    this.#random = random;
  }

  /** Has this file stand for whatever the program reads and writes, until the test is over. */
  install(t: TestContext): void {
    const answer = (
      call: 'readSync' | 'readvSync' | 'writeSync' | 'writevSync' | 'fdatasyncSync',
      by: unknown,
    ) => t.mock.method(fs, call, by as never);
    answer('readSync', (_: number, data: Uint8Array, from: number, length: number, at: number) =>
      this.#move([data.subarray(from, from + length)], at, (piece, place) => this.#read(piece, place)),
    );
    answer('readvSync', (_: number, pieces: Uint8Array[], at: number) =>
      this.#move(pieces, at, (piece, place) => this.#read(piece, place)),
    );
    answer('writeSync', (_: number, data: Uint8Array, from: number, length: number, at: number) =>
      this.#move([data.subarray(from, from + length)], at, (piece, place) => this.#write(piece, place)),
    );
    answer('writevSync', (_: number, pieces: Uint8Array[], at: number) =>
      this.#move(pieces, at, (piece, place) => this.#write(piece, place)),
    );
    answer('fdatasyncSync', () => this.#sync());
    syncBuiltinESMExports();
    t.after(() => {
      t.mock.restoreAll();
      syncBuiltinESMExports();
    });
  }

  #move(pieces: readonly Uint8Array[], at: number, one: (piece: Uint8Array, at: number) => void): number {
    if (this.#happens(this.#rates.interrupted)) throw systemError(this.#random() < 0.5 ? 'EINTR' : 'EAGAIN');
    if (this.#happens(this.#rates.failed)) throw systemError(this.#random() < 0.5 ? 'EIO' : 'ENOSPC');
    const whole = Buffer.concat(pieces);
    const sectors = Math.ceil(whole.length / SECTOR);
    const isShort = sectors > 1 && this.#happens(this.#rates.short);
    const length = isShort ? (1 + Math.floor(this.#random() * (sectors - 1))) * SECTOR : whole.length;
    let moved = 0;
    for (const piece of pieces) {
      const part = piece.subarray(0, length - moved);
      one(part, at + moved);
      moved += part.length;
    }
    return moved;
  }

  #read(piece: Uint8Array, at: number): void {
    piece.set(this.bytes.subarray(at, at + piece.length));
  }

  #write(piece: Uint8Array, at: number): void {
    if (piece.length === 0) return;
    const write = this.log.write(at, piece.slice());
    this.bytes.set(piece, at);
    this.log.written(write);
  }

  #sync(): void {
    const flush = this.log.flush();
    const ok = !this.#happens(this.#rates.sync);
    this.log.flushed(flush, ok);
    if (!ok) throw systemError('EIO');
  }

  #happens(rate = 0): boolean {
    const happens = rate > 0 && this.#random() < rate;
    if (happens) this.faults++;
    return happens;
  }
}
