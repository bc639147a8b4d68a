import assert from 'node:assert/strict';
import { test } from 'node:test';
import { settled } from '../../test/support/settled.ts';
import { Allowance } from './allowance.ts';

/** Enters things of these sizes; the list that it returns grows as they are admitted. */
function enterAll(allowance: Allowance, sizes: readonly number[]): number[] {
  const admitted: number[] = [];
  for (const size of sizes) void allowance.enter(size).then(() => admitted.push(size));
  return admitted;
}

test('a number of things is admitted, the rest as others leave, in turn', async () => {
  const allowance = new Allowance(2, 100);
  const admitted = enterAll(allowance, [1, 2, 3, 4]);
  await settled();
  assert.deepEqual(admitted, [1, 2]);
  allowance.leave(1);
  await settled();
  assert.deepEqual(admitted, [1, 2, 3]);
  allowance.leave(2);
  allowance.leave(3);
  await settled();
  assert.deepEqual(admitted, [1, 2, 3, 4]);
});

test('bytes are limited too; a small thing does not overtake a large one, which goes alone if need be', async () => {
  const allowance = new Allowance(10, 100);
  const admitted = enterAll(allowance, [60, 40, 200]);
  await settled();
  assert.deepEqual(admitted, [60, 40]);
  allowance.leave(40);
  void allowance.enter(1).then(() => admitted.push(1));
  await settled();
  assert.deepEqual(admitted, [60, 40]);
  allowance.leave(60);
  await settled();
  assert.deepEqual(admitted, [60, 40, 200]);
  allowance.leave(200);
  await settled();
  assert.deepEqual(admitted, [60, 40, 200, 1]);
});

test('idle() resolves when all have left, at once when none has entered', async () => {
  const allowance = new Allowance(10, 100);
  await allowance.idle();
  await allowance.enter(5);
  await allowance.enter(5);
  let idle = false;
  void allowance.idle().then(() => {
    idle = true;
  });
  allowance.leave(5);
  await settled();
  assert.equal(idle, false);
  allowance.leave(5);
  await settled();
  assert.equal(idle, true);
});
