// C8: the power goes at any event of a disk under load. What is left has to be what virtio 1.3 §5.2.6.2 promises: of
// each sector what the last flush made stable, or what was written since. docs/crash-consistency.md has the figures.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { EXPOSURE_MODES } from '../../src/dma/exposure-modes.ts';
import { randomFrom } from '../../src/machine/random.ts';
import { LossyStore } from '../../src/storage/lossy-store.ts';
import { RawFile } from '../../src/storage/raw-file.ts';
import { type FaultRates, LossyFile } from '../support/lossy-file.test.helper.ts';
import { LateStore } from '../support/late-store.test.helper.ts';
import { PowerCutWork, type PowerCutRun } from '../support/power-cut-work.test.helper.ts';
import { diskBytes } from '../support/scene.test.helper.ts';

const SECTORS = 48;
const REQUESTS = 120;
/** Those of guests on Arm: what is mapped or copied makes no difference to the disk. */
const MODES = EXPOSURE_MODES.filter((mode) => mode !== 'copy');

const disk = () => diskBytes(SECTORS * 512, 0x42);

function lossy(seed: number) {
  const store = new LossyStore(disk());
  return { store, log: store.log, seed, mode: MODES[seed % MODES.length], requests: REQUESTS };
}

/** A disk that answers later, in any order. */
function late(seed: number) {
  const store = new LateStore(disk());
  const random = randomFrom(~seed);
  const answer = () => store.answer(Math.floor(random() * 1000));
  const orphan = () => store.orphan();
  return {
    store,
    log: store.log,
    answer,
    orphan,
    seed,
    mode: MODES[seed % MODES.length],
    requests: REQUESTS,
  };
}

/** A raw image whose host loses power, and whose system calls go wrong. */
function lossyFile(t: TestContext, seed: number, rates: FaultRates) {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'disk.img');
  writeFileSync(path, disk());
  const store = new RawFile(path, false);
  t.after(() => store.close());
  const file = new LossyFile(disk(), rates, randomFrom(~seed));
  file.install(t);
  return { file, store, log: file.log, seed, mode: MODES[seed % MODES.length], requests: REQUESTS };
}

/** Runs that differ by their seeds, from `first` on; what they have seen together is printed. */
async function runAll(
  t: TestContext,
  first: number,
  seeds: number,
  make: (seed: number) => PowerCutRun,
  finish = (work: PowerCutWork) => work.finishStable(),
) {
  const seen = { cuts: 0, states: 0, failed: 0, accidents: 0 };
  for (let seed = first; seed < first + seeds; seed++) {
    const work = new PowerCutWork(make(seed));
    await finish(work);
    for (const name of ['cuts', 'states', 'failed', 'accidents'] as const) seen[name] += work[name];
  }
  t.diagnostic(
    `seeds ${first} to ${first + seeds - 1}: ${seen.cuts} power cuts, ${seen.states} states of the disk, ` +
      `${seen.failed} requests failed, ${seen.accidents} accidents`,
  );
  return seen;
}

test('C8 a power cut at any event: what was flushed is there, of all else any part', async (t) => {
  const seen = await runAll(t, 1, 20, lossy);
  assert.ok(seen.states >= 250_000, `${seen.states} states`);
  assert.equal(seen.failed, 0);
});

test('C8 a disk that answers later and in any order: what was flushed is there, of all else any part', async (t) => {
  const seen = await runAll(t, 701, 6, late);
  assert.ok(seen.states >= 50_000, `${seen.states} states`);
  assert.equal(seen.failed, 0);
});

test('C8 a disk that answers later, for a driver without VIRTIO_BLK_F_FLUSH', async (t) => {
  await runAll(
    t,
    721,
    4,
    (seed) => ({ ...late(seed), writeThrough: true }),
    (work) => work.finish(),
  );
});

test('C8 C4 a disk that answers later, whose device is reset and whose backend dies', async (t) => {
  const seen = await runAll(t, 741, 4, (seed) => ({ ...late(seed), accidents: 0.01 }));
  assert.ok(seen.accidents > 0);
});

test('C8 a disk that writes blocks of 4096 bytes leaves fewer states, all of them promised', async (t) => {
  await runAll(t, 101, 4, (seed) => ({ ...lossy(seed), block: 4096 }));
});

test('C8 a driver without VIRTIO_BLK_F_FLUSH: what was answered is there', async (t) => {
  const seen = await runAll(
    t,
    201,
    8,
    (seed) => ({ ...lossy(seed), writeThrough: true }),
    (work) => work.finish(),
  );
  assert.equal(seen.failed, 0);
});

test('C8 C5 devices that are reset and backends that die in between keep what was promised', async (t) => {
  for (const writeThrough of [false, true]) {
    const seen = await runAll(
      t,
      301,
      6,
      (seed) => ({ ...lossy(seed), writeThrough, accidents: 0.15 }),
      (work) => (writeThrough ? work.finish() : work.finishStable()),
    );
    assert.ok(seen.accidents > 60, `${seen.accidents} accidents`);
    assert.equal(seen.failed, 0, 'what was under way is asked again');
  }
});

test('C8 R3 a raw image whose calls are interrupted and cut short', async (t) => {
  let faults = 0;
  for (let seed = 401; seed < 405; seed++) {
    await t.test(`C8 a power cut of a raw image keeps what was promised, seed ${seed}`, async (inner) => {
      const made = lossyFile(inner, seed, { interrupted: 0.2, short: 0.4 });
      const seen = await runAll(inner, seed, 1, () => made);
      assert.equal(seen.failed, 0);
      faults += made.file.faults;
    });
  }
  assert.ok(faults > 100, `${faults} faults`);
});

for (const writeThrough of [false, true]) {
  const what = writeThrough ? 'without flush' : 'with flush';
  test(`C8 R1 R3 a raw image whose calls fail in every way, a driver ${what}`, async (t) => {
    const rates = { interrupted: 0.1, short: 0.3, failed: 0.1, sync: 0.05 };
    for (let seed = 501; seed < 507; seed++) {
      await t.test(`C8 a power cut of a raw image keeps what was promised, seed ${seed}`, async (inner) => {
        const made = lossyFile(inner, seed, rates);
        const seen = await runAll(
          inner,
          seed,
          1,
          () => ({ ...made, writeThrough }),
          (work) => work.finish(),
        );
        assert.ok(seen.failed > 0);
      });
    }
  });
}
