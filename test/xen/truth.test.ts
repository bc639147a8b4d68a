// The embedded Xen against the real one: the same grant operations, from the same seeds, must be answered alike, and
// leave the same bits in the tables and the same data in the pages (docs/embedded-xen.md, "How it is checked").

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Machine } from './rig/machine.ts';
import { takeMachine } from './rig/running.ts';
import { describe, differences, shrink, type XenPlayer } from './truth/compare.ts';
import { embeddedWorld } from './truth/embedded-world.ts';
import { generate } from './truth/generate.ts';
import { play } from './truth/play.ts';
import { RealXen } from './truth/real-xen.ts';
import { operationsIn } from './truth/script.ts';

/** Other sequences are played with other seeds: GRANTIO_SEED=7 npm run test:xen. */
const SEED = Number(process.env['GRANTIO_SEED'] ?? 1);
const SEQUENCES = 90;
const STEPS = 60;
/** Sequences that go into domain 0 at once. */
const ROUND = 45;

const model: XenPlayer = {
  name: 'model',
  play: (sequences) => Promise.resolve(sequences.map((sequence) => play(embeddedWorld(), sequence))),
};

let machine: Machine | undefined;
let share = takeMachine();

before(async () => {
  if (share) return;
  machine = new Machine(await Machine.build(false));
  share = machine.share;
  await machine.ready();
});

after(async () => {
  await machine?.stop();
  machine?.remove();
});

test('the embedded Xen answers more than 10,000 grant operations as Xen 4.17 does', async (t) => {
  const xen = new RealXen(share!);
  const sequences = Array.from({ length: SEQUENCES }, (_, index) => generate(SEED + index, STEPS));
  const operations = sequences.flat().reduce((sum, step) => sum + operationsIn(step), 0);
  t.diagnostic(
    `seeds ${SEED} to ${SEED + SEQUENCES - 1}: ${operations} operations in ${SEQUENCES * STEPS} steps`,
  );
  assert.ok(operations > 10_000, `${operations} operations`);
  for (let at = 0; at < SEQUENCES; at += ROUND) {
    const found = await differences(model, xen, sequences.slice(at, at + ROUND));
    const first = found.find((one) => one !== undefined);
    if (first === undefined) continue;
    const shortest = await shrink(model, xen, first);
    const others = found.filter((one) => one !== undefined).length - 1;
    assert.fail(`${describe([model.name, xen.name], shortest)}\n(and ${others} other sequences)`);
  }
});
