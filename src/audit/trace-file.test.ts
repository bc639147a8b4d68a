import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { DirectTracer } from './event-tracer.ts';
import { EVENT_FIELDS, type EventKind, KIND_NUMBER, type TraceEvent } from './events.ts';
import { ReusedEvents } from './reused-events.ts';
import { type TraceHeader, TraceWriter } from './trace-file.ts';
import { readTrace, TraceFormatError, TraceReader } from './trace-reader.ts';

const header: TraceHeader = {
  version: '0.1.0',
  mode: 'bounce',
  devices: [{ domain: 1, device: 7, name: 'disk "a"\n' }],
  startTime: '2026-01-02T03:04:05.678Z',
};

/** A file that is a string. */
function written(report: (trace: DirectTracer) => void): string {
  let text = '';
  let time = 1000.5;
  const writer = new TraceWriter(header, (chunk) => {
    text += chunk;
  });
  report(new DirectTracer([writer], () => time++));
  writer.close();
  return text;
}

function smallRun(trace: DirectTracer): void {
  trace.privatePages(1, 7, 100, 4);
  trace.requestBegin(1, 7, 1, 0, 512);
  trace.grant(1, 0, 8, 100, 2, false);
  trace.need(1, 7, 8, 4000, 200, 2);
  trace.map(0, 1, 8, 5, false);
  trace.mapRefused(0, 1, 900, -3);
  trace.touch(0, 1, 8, 4000, 200, true);
  trace.revoke(1, 9, 1);
  trace.busy(1, 8);
  trace.busy(1, 8);
  trace.needEnd(1, 7, 8, 4000, 200);
  trace.unmap(0, 1, 8, 5);
  trace.revoke(1, 8, 1);
  trace.requestEnd(1, 7, 1, 0);
  trace.privatePagesEnd(1, 100, 4);
}

interface DrawnLine {
  readonly name: string;
  readonly cat: string;
  readonly ph: string;
  readonly id?: string;
  readonly ts: number;
  readonly pid: number;
  readonly tid: number;
  readonly args: Record<string, unknown>;
}

const linesOf = (text: string): DrawnLine[] => JSON.parse(text);

const kinds = Object.keys(EVENT_FIELDS) as EventKind[];
const someEvent = (sequence: number): fc.Arbitrary<TraceEvent> =>
  fc
    .record({
      kind: fc.constantFrom(...kinds),
      time: fc.oneof(fc.double({ min: 0, max: 1e15, noNaN: true }), fc.nat()),
      thread: fc.nat(7),
      values: fc.array(fc.oneof(fc.nat(30), fc.nat(0xffff_ffff), fc.maxSafeNat()), {
        minLength: 6,
        maxLength: 6,
      }),
    })
    .map(({ kind, time, thread, values }) => {
      const [a, b, c, d, e, f] = values.map((value, at) => {
        const field: string | undefined = EVENT_FIELDS[kind][at];
        if (field === 'count') return value % 5;
        if (field === 'size' || field === 'offset') return value % 0xffff_ffff;
        if (field === 'readonly' || field === 'write') return value % 2;
        return field === 'status' ? 0 - value : value;
      });
      // A copy: the object itself is reused.
      return { ...new ReusedEvents().make(KIND_NUMBER[kind], sequence, time, thread, a, b, c, d, e, f) };
    });

test('what is written is what is read, whatever the events', () => {
  fc.assert(
    fc.property(
      fc.nat(40).chain((count) => fc.tuple(...Array.from({ length: count }, (_, at) => someEvent(at)))),
      fc.integer({ min: 1, max: 5000 }),
      (events, chunkSize) => {
        let text = '';
        const writer = new TraceWriter(
          header,
          (chunk) => {
            text += chunk;
          },
          chunkSize,
        );
        for (const event of events) writer.consume(event);
        writer.close();
        assert.deepEqual(readTrace(text), { header, events, isComplete: true, missing: 0 });
        linesOf(text);
      },
    ),
    { seed: 7, numRuns: 100 },
  );
});

test('a file cut at any byte is read up to its last full line (invariant 33)', () => {
  const text = written(smallRun);
  const whole = readTrace(text);
  assert.equal(whole.isComplete, true);
  let longest = 0;
  for (let cut = text.indexOf('\n') + 1; cut <= text.length; cut++) {
    const { events, isComplete } = readTrace(text.slice(0, cut));
    assert.deepEqual(events, whole.events.slice(0, events.length));
    const full = text.slice(0, cut).split('\n').slice(0, -1);
    assert.equal(events.length, full.filter((line) => line.includes('"kind"')).length);
    assert.equal(isComplete, cut === text.length);
    longest = Math.max(longest, events.length);
  }
  assert.equal(longest, whole.events.length);
});

test('every line but the first starts with its comma, so that tools can take a file without its end', () => {
  const text = written(smallRun);
  const lines = text.split('\n').slice(0, -2);
  for (let count = 1; count <= lines.length; count++) JSON.parse(`${lines.slice(0, count).join('\n')}]`);
});

test('Perfetto sees a process for each domain, and slices that begin and end', () => {
  const lines = linesOf(written(smallRun));
  const names = lines.filter(({ name }) => name === 'process_name');
  assert.deepEqual(
    names.map(({ pid, args }) => [pid, args['name']]),
    [
      [2, 'domain 1'],
      [1, 'domain 0'],
    ],
  );
  const begun = new Map<string, number>();
  for (const { name, cat, ph, id, pid } of lines) {
    const slice = `${name} ${cat} ${pid} ${id}`;
    if (ph === 'b') {
      assert.ok(!begun.has(slice), slice);
      begun.set(slice, 1);
    }
    if (ph === 'e') assert.ok(begun.delete(slice), slice);
    if (ph === 'n') assert.ok(begun.has(slice), slice);
  }
  assert.deepEqual([...begun.keys()], []);
  const drawn = lines.map(({ name, ph, id }) => `${ph} ${name} ${id ?? ''}`.trim());
  for (const slice of [
    'grant 1/8',
    'grant 1/9',
    'quarantine 1/8',
    'need 1/36768',
    'mapping 0/5',
    'request 1/1',
  ])
    assert.ok(drawn.includes(`b ${slice}`), slice);
  assert.deepEqual(
    drawn.filter((each) => each.startsWith('i')),
    ['i private pages', 'i map refused', 'i write', 'i private pages end'],
  );
  for (const line of lines) {
    for (const field of ['name', 'cat', 'ph', 'ts', 'pid', 'tid', 'args']) assert.ok(field in line, field);
  }
  assert.equal(lines.find(({ name }) => name === 'request')?.ts, 1.002, 'microseconds');
});

test('O4 a full disk stops the trace with a counter, and the run goes on', () => {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-trace-'));
  try {
    const file = join(folder, 'trace.json');
    let room = 3000;
    const full = Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
    const write = (chunk: string) => {
      // As write(2) on a full disk: what fits is written, in the middle of a line.
      writeFileSync(file, chunk.slice(0, room), { flag: 'a' });
      room -= chunk.length;
      if (room < 0) throw full;
    };
    const writer = new TraceWriter(header, write, 1000);
    let served = 0;
    const trace = new DirectTracer([writer, { consume: () => void served++ }], () => 0);
    for (let id = 0; id < 100; id++) {
      trace.requestBegin(1, 7, id, 0, 512);
      trace.requestEnd(1, 7, id, 0);
    }
    writer.flush();
    writer.close();
    assert.equal(served, 200);
    assert.equal(writer.failure, full);
    const { events, isComplete } = readTrace(readFileSync(file, 'utf8'));
    assert.equal(isComplete, false);
    assert.ok(events.length > 5 && events.length < 20);
    assert.ok(writer.lost >= 200 - events.length && writer.lost < 200);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('O4 a sink that reports its failure late is stopped by its owner; what was handed over is not lost', () => {
  const chunks: string[] = [];
  const writer = new TraceWriter(header, (chunk) => void chunks.push(chunk));
  const trace = new DirectTracer([writer], () => 0);
  trace.busy(1, 8);
  writer.flush();
  trace.busy(1, 8);
  writer.stop(new Error('the stream was destroyed'));
  trace.busy(1, 8);
  writer.close();
  assert.equal(writer.lost, 2);
  assert.equal(readTrace(chunks.join('')).events.length, 1);
});

test('runs and stacks lie between the events, in their place', () => {
  let text = '';
  const writer = new TraceWriter(
    { ...header, devices: [{ domain: 1, device: 7, name: 'xvda', mode: 'direct', type: 2 }] },
    (chunk) => {
      text += chunk;
    },
  );
  const trace = new DirectTracer([writer], () => 0);
  writer.beginRun('direct');
  trace.origin(1, 7, 8, 0, 3);
  writer.addStacks(new Map([[3, 'at "read" (blk.ts:1)\n']]));
  writer.beginRun('bounce');
  trace.busy(1, 8);
  writer.close();
  const seen: unknown[] = [];
  const reader = new TraceReader({
    consume: ({ kind }) => void seen.push(kind),
    beginRun: (mode) => void seen.push(['run', mode]),
    stack: (stack, words) => void seen.push([stack, words]),
  });
  for (const line of text.split('\n').slice(0, -1)) reader.read(line);
  assert.deepEqual(seen, [
    ['run', 'direct'],
    'origin',
    [3, 'at "read" (blk.ts:1)\n'],
    ['run', 'bounce'],
    'busy',
  ]);
  assert.deepEqual(reader.header?.devices, [{ domain: 1, device: 7, name: 'xvda', mode: 'direct', type: 2 }]);
  assert.equal(reader.lines, text.split('\n').length - 1);
  assert.equal(readTrace(text).events.length, 2);
});

test('a file with holes in the order tells how many events are missing', () => {
  const text = written(smallRun);
  const without = text
    .split('\n')
    .filter((line) => !/"sequence":(3|4|9),/.test(line))
    .join('\n');
  assert.equal(readTrace(without).missing, 3);
});

test('lines that are not of a trace are refused with their number, what was expected and what was found', () => {
  const good = written(smallRun).split('\n');
  const event = (args: object) =>
    `,${JSON.stringify({ name: 'x', args: { sequence: 0, time: 0, thread: 0, ...args } })}`;
  const cases: [line: number, text: string, message: RegExp][] = [
    [1, '', /line 1: expected "\[\{", got ""/],
    [1, '[{"name":"other"}', /line 1: not a trace of grantio/],
    [1, '[{"name":"grantio","args":{"format":2}}', /line 1: format 2, this version reads 1/],
    [1, '[{"name":"grantio","args":{"format":1}}', /version: expected text, got undefined/],
    [2, 'null', /line 2: expected ",\{", got "null"/],
    [2, ',{"name":', /line 2: not JSON/],
    [2, event({ kind: 'toString' }), /no event of kind "toString"/],
    [
      2,
      event({ kind: 'busy', domain: 1 }),
      /ref: expected an integer from 0 to 9007199254740991, got undefined/,
    ],
    [2, event({ kind: 'busy', domain: -1, ref: 8 }), /domain: expected an integer from 0/],
    [2, event({ kind: 'busy', domain: 1.5, ref: 8 }), /domain: expected an integer/],
    [2, event({ kind: 'busy', domain: '1', ref: 8 }), /domain: .* got "1"/],
    [2, event({ kind: 'busy', domain: 1, ref: 8, time: null }), /time: expected a number, got null/],
    [2, event({ kind: 'revoke', domain: 1, ref: 8, count: 2 ** 32 }), /count: expected .* to 1048576, got/],
    [
      2,
      event({ kind: 'map', mapper: 0, owner: 1, ref: 8, handle: 0, readonly: 1 }),
      /readonly: expected true or false/,
    ],
    [2, ',{"name":"grantio_run","args":{"mode":1}}', /line 2: mode: expected text, got 1/],
    [2, ',{"name":"grantio_stack","args":{"text":"x"}}', /line 2: stack: expected an integer/],
    [2, '{"name":"need","args":{}}', /line 2: expected ",\{"/],
    [6, good[4], /line 6: event 0 comes after event 0/],
  ];
  for (const [line, text, message] of cases) {
    const lines = [...good.slice(0, line - 1), text, ''];
    assert.throws(
      () => readTrace(lines.join('\n')),
      (error) => error instanceof TraceFormatError && message.test(error.message),
      `${message}`,
    );
  }
  assert.throws(() => readTrace(good[0].slice(0, 20)), /ends before its first line does/);
});
