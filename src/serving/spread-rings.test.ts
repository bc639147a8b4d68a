import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { regionOver } from '../abi/region.ts';
import { ProtocolViolation } from '../errors.ts';
import type { RingEvents, RingMemory, RingSetup } from '../transports/vhost-user/platform.ts';
import type { WorkerCommand } from './ring-commands.ts';
import { SpreadRings } from './spread-rings.ts';

const SESSION = 9;

/** Rings over workers that record what they are told, as it comes out of a thread's port. */
function spread(workers: number, answer: (command: WorkerCommand) => unknown = () => undefined) {
  const told: WorkerCommand[][] = Array.from({ length: workers }, () => []);
  const heard: unknown[] = [];
  const record =
    (name: string) =>
    (...args: unknown[]): void => {
      heard.push([name, ...args]);
    };
  const events: RingEvents = {
    interrupt: record('interrupt'),
    failed: record('failed'),
    miss: record('miss'),
    configChanged: record('configChanged'),
  };
  const calls = told.map((commands) => (command: WorkerCommand) => {
    commands.push(structuredClone(command));
    return answer(command);
  });
  return { rings: new SpreadRings(SESSION, 4, calls, events), told, heard };
}

const SETUP: Omit<RingSetup, 'index'> = {
  ...{ size: 8, base: 3, logAddress: undefined, inflight: undefined, kick: 5 },
  places: {
    ...{ descriptorLow: 0, descriptorHigh: 1, driverLow: 2, driverHigh: 3 },
    ...{ deviceLow: 4, deviceHigh: 5 },
  },
};

test('each ring has one worker, always the same, and all workers have rings before one has two more', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 8 }), fc.integer({ min: 1, max: 32 }), (workers, queues) => {
      const { rings, told } = spread(workers, ({ kind }) => (kind === 'stop' ? 77 : kind === 'start'));
      for (let index = 0; index < queues; index++) {
        assert.equal(rings.start({ ...SETUP, index }), true);
        rings.setCall(index, 100 + index);
        rings.kick(index);
        assert.equal(rings.stop(index), 77);
      }
      for (const [worker, commands] of told.entries()) {
        const own = Array.from({ length: queues }, (_, i) => i).filter((i) => i % workers === worker);
        const expected = own.flatMap((index) => [
          { session: SESSION, kind: 'start', setup: { ...SETUP, index } },
          { session: SESSION, kind: 'call', index, fd: 100 + index },
          { session: SESSION, kind: 'kick', index },
          { session: SESSION, kind: 'stop', index },
        ]);
        assert.deepEqual(commands, [{ session: SESSION, kind: 'open', endpoint: 4 }, ...expected]);
      }
    }),
    { seed: 81, numRuns: 200 },
  );
});

test('what is of all rings is told to each worker, with memory as addresses', () => {
  const { rings, told } = spread(3);
  const region = regionOver(new ArrayBuffer(64), 0, 64, 0x7000);
  const memory: RingMemory = {
    ...{ translated: true, missesAnswered: true, log: region },
    regions: [{ guest: 1, user: 2, size: 64, memory: region }],
  };
  rings.setFeatures(5n);
  rings.setMemory(memory);
  rings.invalidate(0, Number.POSITIVE_INFINITY);
  rings.reset();
  rings.close();
  const sent = { address: 0x7000, byteLength: 64 };
  for (const commands of told)
    assert.deepEqual(commands.slice(1), [
      { session: SESSION, kind: 'features', features: 5n },
      {
        ...{ session: SESSION, kind: 'memory' },
        memory: {
          translated: true,
          missesAnswered: true,
          log: sent,
          granted: [],
          regions: [{ guest: 1, user: 2, size: 64, memory: sent }],
        },
      },
      { session: SESSION, kind: 'invalidate', iova: 0, size: Number.POSITIVE_INFINITY },
      { session: SESSION, kind: 'reset' },
      { session: SESSION, kind: 'close' },
    ]);
});

test('what a worker refuses is thrown, and what it says comes to the session', () => {
  const { rings, heard } = spread(1, ({ kind }) => {
    if (kind === 'start') throw new ProtocolViolation('§2.7', 'not there');
    return undefined;
  });
  assert.throws(() => rings.start({ ...SETUP, index: 0 }), ProtocolViolation);
  rings.hear({ session: SESSION, kind: 'interrupt', index: 2 });
  rings.hear({ session: SESSION, kind: 'failed', index: 1, clause: '§2.7.5', detail: 'a loop' });
  rings.hear({ session: SESSION, kind: 'miss', iova: 4096, right: 1 });
  assert.deepEqual(heard, [
    ['interrupt', 2],
    ['failed', 1, new ProtocolViolation('§2.7.5', 'a loop')],
    ['miss', 4096, 1],
  ]);
});
