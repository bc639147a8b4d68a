// The states that a power cut may leave, for logs small enough to write all of them down.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { LossyStore } from './lossy-store.ts';
import { type CutLimits, PowerCut } from './power-cut.ts';
import { SECTOR, WriteLog } from './write-log.ts';

const ALL: CutLimits = { exhaustive: 4096, samples: 0, random: () => 0 };

function sectors(...values: number[]): Uint8Array {
  return Uint8Array.from({ length: values.length * SECTOR }, (_, at) => values[Math.floor(at / SECTOR)]);
}

/** All states of a cut, each as the first bytes of its sectors. */
function statesOf(log: WriteLog, block: 512 | 4096 = 512, limits = ALL): string[] {
  return Array.from(new PowerCut(log, block).states(limits), (state) => {
    const image = state.image();
    return Array.from({ length: image.length / SECTOR }, (_, sector) => {
      const bytes = image.subarray(sector * SECTOR, (sector + 1) * SECTOR);
      assert.ok(
        bytes.every((byte) => byte === bytes[0]),
        'no sector is torn',
      );
      return bytes[0];
    }).join('');
  }).sort();
}

/** A log of a disk of zeroes, and short names for its events. */
function logOf(count: number) {
  const log = new WriteLog(new Uint8Array(count * SECTOR));
  const write = (sector: number, ...values: number[]) => log.write(sector * SECTOR, sectors(...values));
  const done = (sector: number, ...values: number[]) => log.written(write(sector, ...values));
  return { log, write, done, flush: () => log.flushed(log.flush(), true) };
}

test('C8 nothing written: the disk is as it was', () => {
  assert.deepEqual(statesOf(logOf(2).log), ['00']);
});

test('C8 a write that no flush has covered may be there, or not, or in part, begun or done', () => {
  const { log, write } = logOf(3);
  const at = write(1, 1, 2);
  const expected = ['000', '002', '010', '012'];
  assert.deepEqual(statesOf(log), expected);
  log.written(at);
  assert.deepEqual(statesOf(log), expected);
});

test('C8 of several writes to a sector any may be the last that reached the disk', () => {
  const { log, done, flush } = logOf(1);
  done(0, 1);
  done(0, 2);
  assert.deepEqual(statesOf(log), ['0', '1', '2']);
  flush();
  assert.deepEqual(statesOf(log), ['2']);
});

test('C8 W1 W2 W3 C3 C2 F C1 CF: the flush covers W3 and W2; W1 was done after it was issued', () => {
  const { log, write } = logOf(3);
  const [one, two, three] = [write(0, 1), write(1, 2), write(2, 3)];
  log.written(three);
  log.written(two);
  const flush = log.flush();
  log.written(one);
  assert.equal(statesOf(log).length, 8, 'a flush that is under way has promised nothing');
  log.flushed(flush, true);
  assert.deepEqual(statesOf(log), ['023', '123']);
  log.flushed(log.flush(), true);
  assert.deepEqual(statesOf(log), ['123']);
});

test('C8 flushes may overlap, and each covers what was done before it', () => {
  const { log, done } = logOf(2);
  done(0, 1);
  const first = log.flush();
  done(1, 2);
  const second = log.flush();
  log.flushed(second, true);
  assert.deepEqual(statesOf(log), ['12']);
  log.flushed(first, true);
  assert.deepEqual(statesOf(log), ['12']);
});

test('C8 after a flush that failed no later one helps, but writing the sector again does', () => {
  const { log, done, flush } = logOf(2);
  done(0, 1, 1);
  log.flushed(log.flush(), false);
  flush();
  assert.deepEqual(statesOf(log), ['00', '01', '10', '11']);
  done(0, 2);
  flush();
  assert.deepEqual(statesOf(log), ['20', '21']);
});

test('C8 a disk with blocks of 4096 bytes writes these as a whole', () => {
  const { log, done } = logOf(16);
  done(6, 1, 1, 1, 1);
  done(7, 2);
  const zeroes = '000000';
  const [half, both] = [`${zeroes}11`, `${zeroes}12`];
  const other = `11${zeroes}`;
  assert.deepEqual(
    statesOf(log, 4096),
    [`${zeroes}00`, half, both].flatMap((block) => [`${block}00${zeroes}`, `${block}${other}`]).sort(),
  );
});

test('C8 where there are too many states, those with whole writes are all looked at, and others by chance', () => {
  const { log, done } = logOf(64);
  for (let sector = 0; sector < 64; sector += 8) done(sector, 1, 1, 1, 1, 1, 1, 1, 1);
  const cut = new PowerCut(log);
  assert.equal(cut.count, 2 ** 64);
  let state = 0.1;
  const random = () => {
    state = (state * 997) % 1;
    return state;
  };
  const states = statesOf(log, 512, { exhaustive: 1000, samples: 100, random });
  assert.equal(new Set(states).size, states.length, 'each is given once');
  const whole = states.filter((text) => /^(0{8}|1{8})*$/.test(text));
  assert.equal(whole.length, 256);
  assert.equal(states.length, 356);
});

test('C8 with more than eight writes: none, all, each alone and all but each are among the states', () => {
  const { log, done } = logOf(12);
  for (let sector = 0; sector < 12; sector++) done(sector, 1);
  const states = new Set(statesOf(log, 512, { exhaustive: 0, samples: 10, random: () => 0.5 }));
  const zeroes = '0'.repeat(12);
  const ones = '1'.repeat(12);
  for (const text of [zeroes, ones]) assert.ok(states.has(text));
  for (let at = 0; at < 12; at++) {
    assert.ok(states.has(`${zeroes.slice(0, at)}1${zeroes.slice(at + 1)}`));
    assert.ok(states.has(`${ones.slice(0, at)}0${ones.slice(at + 1)}`));
  }
});

test('C8 a state says in words what has reached the disk', () => {
  const { log, done } = logOf(2);
  done(0, 1);
  done(1, 2);
  const [, state] = Array.from(new PowerCut(log).states(ALL), String);
  assert.equal(state, '0: write 0, 512: stable');
});

test('C8 any script: the states are the product of what each sector may hold, and the contents are one of them', () => {
  const SIZE = 6;
  const steps = fc.array(
    fc.record({
      action: fc.constantFrom('write', 'zeroes', 'discard', 'flush'),
      sector: fc.nat(SIZE - 1),
      length: fc.integer({ min: 1, max: 3 }),
    }),
    { maxLength: 6 },
  );
  const run = fc.property(steps, (script) => {
    const store = new LossyStore(new Uint8Array(SIZE * SECTOR));
    const possible = Array.from({ length: SIZE }, () => new Set([0]));
    for (const [index, { action, sector, length }] of script.entries()) {
      const count = Math.min(length, SIZE - sector);
      const value = action === 'write' ? index + 1 : action === 'zeroes' ? 0 : 0xdd;
      if (action === 'flush') {
        store.flush();
        for (const [at, values] of possible.entries()) {
          values.clear();
          values.add(store.bytes[at * SECTOR]);
        }
        continue;
      }
      if (action === 'write') store.log.written(fill(store, sector, count, value));
      else if (action === 'zeroes') store.writeZeroes(sector * SECTOR, count * SECTOR);
      else store.discard(sector * SECTOR, count * SECTOR);
      for (let at = sector; at < sector + count; at++) possible[at].add(value);
    }
    const product = possible.reduce(
      (texts, values) => texts.flatMap((text) => [...values].map((value) => text + value)),
      [''],
    );
    const states = new Set(statesOf(store.log));
    assert.deepEqual([...states].sort(), product.sort());
    const contents = Array.from({ length: SIZE }, (_, at) => store.bytes[at * SECTOR]).join('');
    assert.ok(states.has(contents));
  });
  fc.assert(run, { seed: 8, numRuns: 200 });
});

/** A write that the test makes itself; the store's own needs memory of a guest. */
function fill(store: LossyStore, sector: number, count: number, value: number): number {
  const bytes = new Uint8Array(count * SECTOR).fill(value);
  store.bytes.set(bytes, sector * SECTOR);
  return store.log.write(sector * SECTOR, bytes);
}
