import assert from 'node:assert/strict';
import { test } from 'node:test';
import { regionOver } from '../abi/region.ts';
import { KeptDevice, keptDeviceSize } from './kept-device.ts';

const OFFER = { deviceId: 4, queueSizes: [8] };
const REGISTERS = { status: 1, driverFeatures: 0n, queues: [], selectors: [0, 0, 0] } as const;

/** A record, and how it has ended. */
function record() {
  const ends: boolean[] = [];
  const region = regionOver(new ArrayBuffer(keptDeviceSize(OFFER.queueSizes)));
  const keeper = new KeptDevice(region, OFFER, (forget) => ends.push(forget));
  return { keeper, ends };
}

test('C1: what a driver has said stays for a successor, until the device ends', () => {
  const { keeper, ends } = record();
  keeper.save(REGISTERS);
  keeper.close();
  assert.deepEqual(ends, [false]);
  keeper.forget();
  assert.deepEqual(ends, [false], 'the memory is used no more');

  const ended = record();
  ended.keeper.save(REGISTERS);
  ended.keeper.forget();
  ended.keeper.close();
  assert.deepEqual(ended.ends, [true]);
});

test('of a device that no driver has touched, such as one that was refused, no record stays', () => {
  const { keeper, ends } = record();
  keeper.close();
  assert.deepEqual(ends, [true]);
});
