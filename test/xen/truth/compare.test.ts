// The check of the model against the real Xen, without the real one: the embedded Xen agrees with itself, and a
// Xen with a mistake is found out and its sequence made short.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  GNTTABOP_COPY,
  GNTTABOP_UNMAP_GRANT_REF,
  gnttabUnmapGrantRef,
} from '../../../src/abi/grant-table-op.ts';
import { GNTST_BAD_HANDLE, GNTST_OKAY, GTF_READING } from '../../../src/abi/grant.ts';
import { type Difference, describe, differences, shrink, statusesIn, type XenPlayer } from './compare.ts';
import { embeddedWorld } from './embedded-world.ts';
import { generate } from './generate.ts';
import { play } from './play.ts';
import { operationsIn, type Step } from './script.ts';
import type { MakeWorld, World } from './world.ts';

const SEED = 20_261_123;
const LENGTH = 60;
const sequences = Array.from({ length: 40 }, (_, index) => generate(SEED + index, LENGTH));

function player(name: string, makeWorld: MakeWorld): XenPlayer {
  return {
    name,
    play: (wanted) => Promise.resolve(wanted.map((sequence) => play(makeWorld(), sequence))),
  };
}

const model = player('model', embeddedWorld);

/** A Xen that spoils what an operation has left behind. */
function withMistake(spoil: (world: World, command: number, bytes: Uint8Array) => void): MakeWorld {
  return () => {
    const world = embeddedWorld();
    const honest = world.call.bind(world);
    world.call = (command, bytes, count) => {
      const answer = honest(command, bytes, count);
      spoil(world, command, answer.bytes);
      return answer;
    };
    return world;
  };
}

async function found(mistaken: MakeWorld): Promise<Difference> {
  const other = player('mistaken', mistaken);
  const [first] = (await differences(model, other, sequences)).filter((one) => one !== undefined);
  assert.ok(first !== undefined, 'no difference was found');
  return shrink(model, other, first);
}

test('the embedded Xen sees every sequence as it did before', async () => {
  assert.deepEqual(
    (await differences(model, model, sequences)).filter((one) => one !== undefined),
    [],
  );
});

test('a wrong status is found, and shrunk to the step that shows it', async () => {
  const mistaken = withMistake((_, command, bytes) => {
    if (command !== GNTTABOP_UNMAP_GRANT_REF || bytes.length === 0) return;
    const first = gnttabUnmapGrantRef.over(bytes);
    if (first.status === GNTST_BAD_HANDLE) first.status = GNTST_OKAY;
  });
  const { sequence } = await found(mistaken);
  assert.deepEqual(
    sequence.map((step) => [step.do, operationsIn(step)]),
    [['unmap', 1]],
  );
});

test('a bit that stays set after an unmap is found', async () => {
  const mistaken = withMistake((world, command) => {
    const entry = world.tableFrame('pv', 0).subarray(9 * 8, 10 * 8);
    if (command === GNTTABOP_UNMAP_GRANT_REF && entry[0] !== 0) entry[0] |= GTF_READING;
  });
  const { sequence } = await found(mistaken);
  assert.deepEqual(
    sequence.map((step) => step.do),
    ['grant', 'unmap'],
  );
});

test('a byte that a copy writes wrongly is found', async () => {
  const mistaken = withMistake((world, command) => {
    if (command === GNTTABOP_COPY && world.page('hvm', 2)[4095] !== 0) world.page('hvm', 2)[4095] ^= 1;
  });
  const { sequence } = await found(mistaken);
  assert.deepEqual(
    sequence.map((step) => step.do),
    ['fill', 'copy'],
  );
});

test('a difference is described with both answers and the sequence', () => {
  const step: Step = { do: 'setVersion', version: 3 };
  const words = describe(['model', 'Xen'], {
    sequence: [step],
    at: 0,
    seen: ['set version -22: 1', 'set version 0: 3'],
  });
  assert.match(
    words,
    /model: set version -22: 1\n {2}Xen: set version 0: 3\n> {"do":"setVersion","version":3}/,
  );
});

test('sequences reach what they are for: each status, each version, and data that moves', () => {
  const lines = sequences.flatMap((sequence) => play(embeddedWorld(), sequence));
  const counts = new Map<string, number>();
  for (const name of lines.flatMap(statusesIn)) counts.set(name, (counts.get(name) ?? 0) + 1);
  const wanted = [
    'okay',
    'general_error',
    'bad_domain',
    'bad_gntref',
    'bad_handle',
    'bad_virt_addr',
    'bad_dev_addr',
    'permission_denied',
    'bad_page',
    'bad_copy_arg',
    'eagain',
  ];
  for (const name of wanted)
    assert.ok((counts.get(`GNTST_${name}`) ?? 0) >= 1, `GNTST_${name}: ${counts.get(`GNTST_${name}`)}`);
  assert.ok((counts.get('GNTST_okay') ?? 0) > lines.length / 3);
  assert.ok(lines.some((line) => line.startsWith('set version 0: 2')));
  assert.ok(
    lines.some((line) => line.startsWith('set version -16')),
    'a switch while entries are pinned',
  );
  assert.ok(
    new Set(lines.filter((line) => line.startsWith('copy')).map((line) => line.split(' | ')[2])).size > 100,
  );
});
