import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Tracer } from '../trace.ts';
import { DirectTracer } from './event-tracer.ts';
import { EVENT_FIELDS, KIND_NUMBER, type TraceEvent } from './events.ts';

test('every method of a Tracer becomes the event of its name, with its arguments by name', () => {
  const events: TraceEvent[] = [];
  let time = 100;
  const trace: Tracer = new DirectTracer([{ consume: (event) => events.push({ ...event }) }], () => time++);
  trace.grant(1, 2, 3, 4, 5, true);
  trace.revoke(1, 2, 3);
  trace.busy(1, 2);
  trace.need(1, 2, 3, 4, 5, 6);
  trace.needEnd(1, 2, 3, 4, 5);
  trace.privatePages(1, 2, 3, 4);
  trace.privatePagesEnd(1, 2, 3);
  trace.map(1, 2, 3, 4, true);
  trace.mapRefused(1, 2, 3, -4);
  trace.unmap(1, 2, 3, 4);
  trace.touch(1, 2, 3, 4, 5, true);
  trace.requestBegin(1, 2, 3, 4, 5);
  trace.requestEnd(1, 2, 3, 4);
  trace.narrow(1, 2, 3, 4);
  trace.origin(1, 2, 3, 4, 5);
  trace.staleLimit(1, 2, 3);
  trace.reach(1, 2, 3, 4);
  trace.reachEnd(1, 2, 3, 4);
  assert.deepEqual(
    events.map(({ sequence, time: when, thread, ...rest }) => [sequence, when, thread, rest]),
    [
      [0, 100, 0, { kind: 'grant', domain: 1, peer: 2, ref: 3, frame: 4, count: 5, readonly: true }],
      [1, 101, 0, { kind: 'revoke', domain: 1, ref: 2, count: 3 }],
      [2, 102, 0, { kind: 'busy', domain: 1, ref: 2 }],
      [3, 103, 0, { kind: 'need', domain: 1, device: 2, ref: 3, offset: 4, size: 5, direction: 6 }],
      [4, 104, 0, { kind: 'needEnd', domain: 1, device: 2, ref: 3, offset: 4, size: 5 }],
      [5, 105, 0, { kind: 'privatePages', domain: 1, device: 2, frame: 3, count: 4 }],
      [6, 106, 0, { kind: 'privatePagesEnd', domain: 1, frame: 2, count: 3 }],
      [7, 107, 0, { kind: 'map', mapper: 1, owner: 2, ref: 3, handle: 4, readonly: true }],
      [8, 108, 0, { kind: 'mapRefused', mapper: 1, owner: 2, ref: 3, status: -4 }],
      [9, 109, 0, { kind: 'unmap', mapper: 1, owner: 2, ref: 3, handle: 4 }],
      [10, 110, 0, { kind: 'touch', mapper: 1, owner: 2, ref: 3, offset: 4, size: 5, write: true }],
      [11, 111, 0, { kind: 'requestBegin', domain: 1, device: 2, id: 3, type: 4, bytes: 5 }],
      [12, 112, 0, { kind: 'requestEnd', domain: 1, device: 2, id: 3, status: 4 }],
      [13, 113, 0, { kind: 'narrow', domain: 1, ref: 2, offset: 3, size: 4 }],
      [14, 114, 0, { kind: 'origin', domain: 1, device: 2, ref: 3, offset: 4, stack: 5 }],
      [15, 115, 0, { kind: 'staleLimit', domain: 1, device: 2, nanoseconds: 3 }],
      [16, 116, 0, { kind: 'reach', mapper: 1, owner: 2, frame: 3, count: 4 }],
      [17, 117, 0, { kind: 'reachEnd', mapper: 1, owner: 2, frame: 3, count: 4 }],
    ],
  );
  // The table of fields, which files are written and read by, names them all and in this order.
  for (const { kind, sequence: _sequence, time: _time, thread: _thread, ...fields } of events)
    assert.deepEqual(Object.keys(fields), EVENT_FIELDS[kind]);
  assert.deepEqual(
    events.map(({ kind }) => kind),
    Object.keys(EVENT_FIELDS),
  );
  assert.deepEqual(Object.values(KIND_NUMBER), [...events.keys()]);
});

test('booleans that are false arrive as false', () => {
  const events: TraceEvent[] = [];
  const trace = new DirectTracer([{ consume: (event) => events.push({ ...event }) }], () => 0);
  trace.grant(1, 2, 3, 4, 5, false);
  trace.map(1, 2, 3, 4, false);
  trace.touch(1, 2, 3, 4, 5, false);
  assert.deepEqual(
    events.map((event) => ('readonly' in event ? event.readonly : 'write' in event && event.write)),
    [false, false, false],
  );
});

test('every consumer gets every event, in the order given', () => {
  const seen: string[] = [];
  const consumers = ['a', 'b'].map((name) => ({
    consume: (event: TraceEvent) => void seen.push(`${name}${event.sequence}`),
  }));
  const trace = new DirectTracer(consumers, () => 0);
  trace.busy(1, 8);
  trace.busy(1, 9);
  assert.deepEqual(seen, ['a0', 'b0', 'a1', 'b1']);
});
