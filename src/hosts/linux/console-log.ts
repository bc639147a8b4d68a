// A console's port that is written to a log file, of a size that has a limit (case D9). Before visible-text.ts.

import { closeSync, fstatSync, openSync, renameSync, writeSync } from 'node:fs';
import type { ConsoleEndpoint, ConsoleLine } from '../../devices/console-endpoint.ts';
import { VisibleText } from './visible-text.ts';
import type { Watches } from './watches.ts';

/** Bytes of the guest written in one turn: a guest that speaks without end does not keep others waiting (F25). */
const TURN = 64 * 1024;

/** Where a log is, and how large it may get. */
export interface ConsoleLogOptions {
  readonly path: string;
  /** Bytes of the file; when they are full it is renamed to PATH.1, in place of the one before. */
  readonly limit: number;
}

/** A log of what a guest says, with control characters shown as text. Throws what `openSync` throws. */
export class ConsoleLog implements ConsoleEndpoint {
  /** Bytes that could not be written: the disk is full, say. The guest goes on. */
  lost = 0;
  readonly #options: ConsoleLogOptions;
  readonly #watches: Pick<Watches, 'later'>;
  readonly #text = new VisibleText();
  #line: ConsoleLine | undefined;
  #fd: number;
  #written: number;
  /** Bytes that it still takes in this turn. */
  #turn = TURN;

  constructor(options: ConsoleLogOptions, watches: Pick<Watches, 'later'>) {
    this.#options = options;
    this.#watches = watches;
    this.#fd = openSync(options.path, 'a', 0o600);
    this.#written = fstatSync(this.#fd).size;
  }

  connect(line: ConsoleLine): void {
    this.#line = line;
  }

  take(bytes: Uint8Array): number {
    const taken = Math.min(bytes.length, this.#turn);
    if (this.#turn === TURN && taken > 0) this.#watches.later(() => this.#nextTurn());
    this.#turn -= taken;
    if (taken > 0) this.#write(this.#text.filter(bytes.subarray(0, taken)));
    return taken;
  }

  hasRoom(): void {
    // It has nothing to say to the guest.
  }

  opened(): void {
    // Who speaks does not matter.
  }

  close(): void {
    this.#line = undefined;
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
  }

  #nextTurn(): void {
    this.#turn = TURN;
    this.#line?.resume();
  }

  #write(text: Uint8Array): void {
    let done = 0;
    try {
      if (this.#written + text.length > this.#options.limit) this.#rotate();
      while (done < text.length) {
        const length = writeSync(this.#fd, text, done);
        done += length;
        this.#written += length;
      }
    } catch {
      this.lost += text.length - done;
    }
  }

  #rotate(): void {
    const { path } = this.#options;
    renameSync(path, `${path}.1`);
    const fd = openSync(path, 'a', 0o600);
    closeSync(this.#fd);
    this.#fd = fd;
    this.#written = 0;
  }
}
