// C8: what file systems and data bases do with a disk, in small: journals that write a transaction, flush, write its
// commit record, and flush. Their promise spans sectors: after a power cut a committed transaction is whole, and one
// that was acknowledged is there.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BlkDevice } from '../../src/devices/blk.ts';
import type { BlkDriver } from '../../src/drivers/blk.ts';
import { Machine } from '../../src/machine/machine.ts';
import { randomFrom } from '../../src/machine/random.ts';
import { LossyStore } from '../../src/storage/lossy-store.ts';
import { PowerCut } from '../../src/storage/power-cut.ts';
import { SECTOR } from '../../src/storage/write-log.ts';
import { BASE } from '../support/scene.test.helper.ts';

const JOURNALS = 3;
const TRANSACTIONS = 8;
/** Sectors of data of a transaction; the commit record follows them. */
const DATA = 3;
const SLOT = DATA + 1;
const OPTIONS = { queues: 2, queueSize: 16, id: 'journal' };

/** How a journal makes a transaction safe. */
type Flushes = 'as it must' | 'not before the commit record' | 'not after it';

/** Transactions one after another, each in sectors of its own. */
class Journal {
  /** Transactions that their client was told are safe. */
  acknowledged = 0;
  readonly #disk: BlkDriver;
  readonly #first: number;
  readonly #flushes: Flushes;

  /** @param first sector of the journal */
  constructor(disk: BlkDriver, first: number, flushes: Flushes) {
    this.#disk = disk;
    this.#first = first;
    this.#flushes = flushes;
  }

  async run(): Promise<void> {
    for (let transaction = 1; transaction <= TRANSACTIONS; transaction++) {
      const data = Array.from({ length: DATA }, (_, at) => this.#write(transaction, at));
      await Promise.all(data);
      if (this.#flushes !== 'not before the commit record') await this.#disk.flush();
      await this.#write(transaction, DATA);
      if (this.#flushes !== 'not after it') await this.#disk.flush();
      this.acknowledged = transaction;
    }
  }

  /** What is wrong with the journal on a disk that was powered on again, if anything is. */
  fault(image: Uint8Array): string | undefined {
    for (let transaction = 1; transaction <= TRANSACTIONS; transaction++) {
      const held = Array.from({ length: SLOT }, (_, at) => image[this.#sector(transaction, at) * SECTOR]);
      const isCommitted = held[DATA] === transaction;
      if (isCommitted && held.some((value) => value !== transaction))
        return `transaction ${transaction} is committed and not whole: ${held}`;
      if (!isCommitted && transaction <= this.acknowledged)
        return `transaction ${transaction} was acknowledged and is not there`;
    }
    return undefined;
  }

  async #write(transaction: number, at: number): Promise<void> {
    const buffer = await this.#disk.buffer(SECTOR);
    buffer.bytes.fill(transaction, 0, SECTOR);
    await this.#disk.write(this.#sector(transaction, at) * SECTOR, buffer, SECTOR);
    buffer.release();
  }

  #sector(transaction: number, at: number): number {
    return this.#first + (transaction - 1) * SLOT + at;
  }
}

/** Journals that work at the same time. Returns how many states were looked at, and the first fault in one. */
async function cutJournals(seed: number, flushes: Flushes) {
  const store = new LossyStore(new Uint8Array(JOURNALS * TRANSACTIONS * SLOT * SECTOR));
  const machine = new Machine({ seed });
  const backend = machine.createBackend(1);
  const guest = machine.createGuest(2, { memory: 2 ** 21 });
  backend.serve(new BlkDevice(store, OPTIONS), guest.ports.id, BASE);
  const disk = guest.attachBlk({ base: BASE, backend: backend.ports.id, device: 0 }, 'bounce', OPTIONS);
  const journals = Array.from(
    { length: JOURNALS },
    (_, index) => new Journal(disk, index * TRANSACTIONS * SLOT, flushes),
  );
  const seen = { states: 0, fault: undefined as string | undefined };
  const random = randomFrom(seed);
  store.log.onEvent = () => {
    for (const state of new PowerCut(store.log).states({ exhaustive: 512, samples: 64, random })) {
      seen.states++;
      const image = state.image();
      for (const journal of journals) seen.fault ??= journal.fault(image);
    }
  };
  await machine.settle(Promise.all(journals.map((journal) => journal.run())));
  return seen;
}

test('C8 journals on one disk: after a power cut at any event each transaction is whole, and safe once acknowledged', async (t) => {
  let states = 0;
  for (let seed = 1; seed <= 6; seed++) {
    const seen = await cutJournals(seed, 'as it must');
    assert.equal(seen.fault, undefined, `seed ${seed}`);
    states += seen.states;
  }
  t.diagnostic(`seeds 1 to 6: ${states} states of the disk`);
});

for (const flushes of ['not before the commit record', 'not after it'] as const) {
  test(`C8 a journal that does not flush ${flushes.slice(4)} is found out`, async () => {
    const { fault } = await cutJournals(1, flushes);
    assert.match(fault ?? 'no fault', flushes === 'not after it' ? /was acknowledged/ : /and not whole/);
  });
}
