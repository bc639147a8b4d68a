// A trace file, read piece by piece: what is in memory of it at a time is one piece and one line.

import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { TraceFormatError, type TraceReader } from '../audit/trace-reader.ts';
import { UsageError } from './usage.ts';

const PIECE = 2 ** 20;
/** A longer line is none of a trace. */
const MAX_LINE = 2 ** 20;
const LINE_FEED = 0x0a;

/** Lets `reader` read the file; what follows its last full line is left out. Throws UsageError. */
export function readTraceFile(path: string, reader: TraceReader, onProgress: (bytes: number) => void): void {
  const fd = open(path);
  try {
    new TraceInput(path, fd, reader).read(onProgress);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`trace file ${path}: cannot be read: ${(error as Error).message}`);
  } finally {
    closeSync(fd);
  }
}

/** Bytes of the file. Throws UsageError. */
export function sizeOfTrace(path: string): number {
  const fd = open(path);
  try {
    return fstatSync(fd).size;
  } finally {
    closeSync(fd);
  }
}

function open(path: string): number {
  try {
    return openSync(path, 'r');
  } catch (error) {
    throw new UsageError(`trace file ${path}: cannot be read: ${(error as Error).message}`);
  }
}

class TraceInput {
  readonly #path: string;
  readonly #fd: number;
  readonly #reader: TraceReader;
  /** Where in the file the line at hand begins. */
  #offset = 0;
  /** What there is of a line that is not full yet. */
  #rest: Buffer = Buffer.alloc(0);

  constructor(path: string, fd: number, reader: TraceReader) {
    this.#path = path;
    this.#fd = fd;
    this.#reader = reader;
  }

  read(onProgress: (bytes: number) => void): void {
    const piece = Buffer.alloc(PIECE);
    for (let size = readSync(this.#fd, piece); size > 0; size = readSync(this.#fd, piece)) {
      this.#take(Buffer.concat([this.#rest, piece.subarray(0, size)]));
      onProgress(this.#offset + this.#rest.length);
    }
    if (this.#reader.header === undefined) throw this.#error(1, 'the file ends before its first line does');
  }

  #take(bytes: Buffer): void {
    let start = 0;
    for (let end = bytes.indexOf(LINE_FEED); end >= 0; end = bytes.indexOf(LINE_FEED, start)) {
      this.#line(bytes.toString('utf8', start, end));
      this.#offset += end + 1 - start;
      start = end + 1;
    }
    this.#rest = bytes.subarray(start);
    if (this.#rest.length > MAX_LINE)
      throw this.#error(
        this.#reader.lines + 1,
        `the line has more than ${MAX_LINE} bytes; expected a trace of grantio`,
      );
  }

  #line(line: string): void {
    try {
      this.#reader.read(line);
    } catch (error) {
      if (error instanceof TraceFormatError) throw this.#error(this.#reader.lines, error.detail);
      throw error;
    }
  }

  #error(line: number, detail: string): UsageError {
    return new UsageError(`trace file ${this.#path}, line ${line}, byte ${this.#offset}: ${detail}`);
  }
}
