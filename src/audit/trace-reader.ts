// Reads what trace-file.ts wrote back into events, for an audit after the run. The file may have been cut
// anywhere, or come from anywhere: every value is checked.

import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import {
  EVENT_FIELDS,
  type EventKind,
  KIND_NUMBER,
  MAX_EVENT_PAGES,
  type TraceConsumer,
  type TraceEvent,
} from './events.ts';
import { ReusedEvents } from './reused-events.ts';
import { RUN_LINE, STACK_LINE, TRACE_FORMAT, type TraceHeader, type TracedDevice } from './trace-file.ts';

/** A line that is not a line of a trace. */
export class TraceFormatError extends Error {
  readonly detail: string;

  constructor(line: number, detail: string) {
    super(`trace file, line ${line}: ${detail}`);
    this.name = 'TraceFormatError';
    this.detail = detail;
  }
}

/** Takes what is in a trace file. */
export interface TraceFileConsumer extends TraceConsumer {
  /** What the trace is of, before all else. */
  header?(header: TraceHeader): void;
  /** The events that follow are of a host that was booted anew, in exposure mode `mode`. */
  beginRun?(mode: string): void;
  /** The text of a stack of calls that events of this run name by its number. */
  stack?(stack: number, text: string): void;
}

/** How the lines end that only draw. */
const NOTHING_CARRIED = '"args":{}}';

const MAX_BYTES = MAX_EVENT_PAGES * XEN_PAGE_SIZE;

/** The largest value of fields that are less than any safe integer. */
const LIMITS: ReadonlyMap<string, number> = new Map([
  ['count', MAX_EVENT_PAGES],
  ['size', MAX_BYTES],
  ['offset', MAX_BYTES - 1],
]);

type Fields = Readonly<Record<string, unknown>>;

function isEventKind(kind: unknown): kind is EventKind {
  return typeof kind === 'string' && Object.hasOwn(EVENT_FIELDS, kind);
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null;
}

function fieldsOf(value: unknown): Fields {
  return isFields(value) ? value : {};
}

/** Reads a trace line by line. */
export class TraceReader {
  /** Known after the first line. */
  header: TraceHeader | undefined = undefined;
  /** Whether the file was closed properly: its last line has been read. */
  isComplete = false;
  /** Events that were never written, by the holes in the order. */
  missing = 0;
  readonly #consumer: TraceFileConsumer;
  readonly #events = new ReusedEvents();
  #line = 0;
  #next = 0;

  constructor(consumer: TraceFileConsumer) {
    this.#consumer = consumer;
  }

  /** Lines read so far. */
  get lines(): number {
    return this.#line;
  }

  /** Takes the next full line, without its line feed. Throws TraceFormatError. */
  read(line: string): void {
    this.#line++;
    if (this.#line === 1) {
      this.header = this.#headerIn(line);
      this.#consumer.header?.(this.header);
    } else if (line === ']') {
      this.isComplete = true;
    } else if (!line.startsWith(',{') || !line.endsWith(NOTHING_CARRIED)) {
      const { name, args } = this.#parse(line, ',');
      this.#take(name, fieldsOf(args));
    }
  }

  #take(name: unknown, args: Fields): void {
    if (args['kind'] !== undefined) {
      this.#event(args);
    } else if (name === RUN_LINE) {
      const mode = this.#text(args, 'mode');
      this.#consumer.beginRun?.(mode);
    } else if (name === STACK_LINE) {
      const stack = this.#number(args, 'stack');
      const text = this.#text(args, 'text');
      this.#consumer.stack?.(stack, text);
    }
  }

  #parse(line: string, start: string): Fields {
    if (!line.startsWith(`${start}{`)) throw this.#error(`expected "${start}{", got "${line.slice(0, 40)}"`);
    try {
      return fieldsOf(JSON.parse(line.slice(1)));
    } catch (error) {
      throw this.#error(`not JSON (${error instanceof Error ? error.message : error})`);
    }
  }

  #headerIn(line: string): TraceHeader {
    const object = this.#parse(line, '[');
    const args = fieldsOf(object['args']);
    if (object['name'] !== 'grantio')
      throw this.#error('not a trace of grantio; write one with `grantio run … --trace FILE`');
    if (args['format'] !== TRACE_FORMAT)
      throw this.#error(
        `format ${args['format']}, this version reads ${TRACE_FORMAT}; read it with the version that wrote it`,
      );
    const devices = args['devices'];
    return {
      version: this.#text(args, 'version'),
      mode: this.#text(args, 'mode'),
      devices: (Array.isArray(devices) ? devices.map(fieldsOf) : []).map((device) => this.#device(device)),
      startTime: this.#text(args, 'startTime'),
      ...(args['side'] === 'backend' && { side: args['side'] }),
    };
  }

  #device(args: Fields): TracedDevice {
    return {
      domain: this.#number(args, 'domain'),
      device: this.#number(args, 'device'),
      name: this.#text(args, 'name'),
      ...(args['mode'] !== undefined && { mode: this.#text(args, 'mode') }),
      ...(args['type'] !== undefined && { type: this.#number(args, 'type') }),
    };
  }

  #event(args: Fields): void {
    const kind = args['kind'];
    if (!isEventKind(kind)) throw this.#error(`there is no event of kind ${JSON.stringify(kind)}`);
    const [a, b, c, d = 0, e = 0, f = 0] = EVENT_FIELDS[kind].map((field) => this.#argument(args, field));
    const sequence = this.#number(args, 'sequence');
    if (sequence < this.#next) throw this.#error(`event ${sequence} comes after event ${this.#next - 1}`);
    this.missing += sequence - this.#next;
    this.#next = sequence + 1;
    const time = args['time'];
    if (typeof time !== 'number') throw this.#error(`time: expected a number, got ${JSON.stringify(time)}`);
    const thread = this.#number(args, 'thread');
    this.#consumer.consume(
      this.#events.make(KIND_NUMBER[kind], sequence, time, thread, a, b, c ?? 0, d, e, f),
    );
  }

  /** An argument as the number that ReusedEvents takes for it. */
  #argument(args: Fields, field: string): number {
    const value = args[field];
    if (field === 'readonly' || field === 'write') {
      if (typeof value !== 'boolean')
        throw this.#error(`${field}: expected true or false, got ${JSON.stringify(value)}`);
      return value ? 1 : 0;
    }
    return this.#number(args, field);
  }

  #number(args: Fields, field: string): number {
    const value = args[field];
    const limit = LIMITS.get(field) ?? Number.MAX_SAFE_INTEGER;
    const least = field === 'status' ? Number.MIN_SAFE_INTEGER : 0;
    if (typeof value === 'number' && Number.isInteger(value) && value >= least && value <= limit)
      return value;
    throw this.#error(
      `${field}: expected an integer from ${least} to ${limit}, got ${JSON.stringify(value)}`,
    );
  }

  #text(args: Fields, field: string): string {
    const value = args[field];
    if (typeof value === 'string') return value;
    throw this.#error(`${field}: expected text, got ${JSON.stringify(value)}`);
  }

  #error(detail: string): TraceFormatError {
    return new TraceFormatError(this.#line, detail);
  }
}

/** A trace that was read whole. */
export interface Trace {
  readonly header: TraceHeader;
  readonly events: readonly TraceEvent[];
  /** Whether the file was closed properly, rather than cut when its writer was killed or the disk full. */
  readonly isComplete: boolean;
  /** Events that were never written, by the holes in the order. */
  readonly missing: number;
}

/**
 * Reads a trace from text; what follows the last full line is left out. For files too large for one string
 * use TraceReader. Throws TraceFormatError.
 */
export function readTrace(text: string): Trace {
  const events: TraceEvent[] = [];
  const reader = new TraceReader({ consume: (event) => void events.push({ ...event }) });
  let start = 0;
  for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', start)) {
    reader.read(text.slice(start, end));
    start = end + 1;
  }
  const { header, isComplete, missing } = reader;
  if (header === undefined) throw new TraceFormatError(1, 'the file ends before its first line does');
  return { header, events, isComplete, missing };
}
