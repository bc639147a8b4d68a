// Register accesses between real threads: the guest's processor sleeps until the server's has answered.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isMainThread } from 'node:worker_threads';
import { noTrace } from '../../../trace.ts';
import type { DomainId } from '../../../xen/ids.ts';
import { addDomain, bootTestMachine } from '../domains.test.helper.ts';
import { meet, myPart, newStage, perform, type Stage } from '../threads.test.helper.ts';
import { sleepWhile, type WaitWhile } from '../waiting.ts';

const ACCESSES = 500;
const VCPUS = 2;
const SERVER = 1 as DomainId;
const GUEST = 2 as DomainId;
const BASES = [0x0200_0000, 0x0200_0200];

// Words of the stage.
const WRONG = 0;
const DONE = 1;
const ASLEEP = 2;

/** Looks at a word that take longer than falling asleep. */
const SPINS = 200_000;

/** Two windows, each with one register for each processor that holds what was last written to it. */
function answer(stage: Stage): void {
  const ports = stage.xen.ports(SERVER, sleepWhile, noTrace);
  for (const base of BASES) {
    const values = new Map<number, number>();
    const registers = {
      read: (offset: number) => values.get(offset) ?? 0,
      write: (offset: number, _size: number, value: number) => {
        values.set(offset, value);
      },
    };
    ports.serveMmio(GUEST, base, 0x200, registers, () => undefined);
  }
  meet(stage, 1 + VCPUS);
  while (Atomics.load(stage.words, DONE) < VCPUS) {
    ports.events.sleep(50);
    ports.events.poll();
  }
}

/** Writes a new value to a register of each device and reads both back; another processor does the same beside. */
function access(stage: Stage, vcpu: number): void {
  const { mmio } = stage.xen.ports(GUEST, sleepWhile, noTrace, vcpu);
  meet(stage, 1 + VCPUS);
  for (let i = 0; i < ACCESSES; i++) {
    BASES.forEach((base, window) => {
      mmio.write(base + 0x100 + 4 * vcpu, 4, i * 2 + window);
    });
    BASES.forEach((base, window) => {
      if (mmio.read(base + 0x100 + 4 * vcpu, 4) !== i * 2 + window) Atomics.add(stage.words, WRONG, 1);
    });
  }
  Atomics.add(stage.words, DONE, 1);
}

/** Goes while the guest waits for its answer. */
function leave(stage: Stage): void {
  const ports = stage.xen.ports(SERVER, sleepWhile, noTrace);
  let left = false;
  const registers = { read: () => 0, write: () => undefined };
  const going = { ...registers, write: () => end() };
  const device = ports.serveMmio(GUEST, BASES[0], 0x200, going, () => undefined);
  const end = () => {
    // Until the guest has had the time to fall asleep.
    for (let spins = 0; spins < SPINS; ) if (Atomics.load(stage.words, ASLEEP) === 1) spins++;
    device.close();
    left = true;
  };
  meet(stage, 2);
  while (!left) {
    ports.events.sleep(50);
    ports.events.poll();
  }
}

/** Counts waits that were not ended by anybody, and must go on as soon as the server has gone. */
function ask(stage: Stage): void {
  const waitWhile: WaitWhile = (words, index, value) => {
    Atomics.store(stage.words, ASLEEP, 1);
    const woken = sleepWhile(words, index, value);
    if (!woken) Atomics.add(stage.words, WRONG, 1);
    return woken;
  };
  const { mmio } = stage.xen.ports(GUEST, waitWhile, noTrace);
  meet(stage, 2);
  mmio.write(BASES[0] + 0x100, 4, 1);
  if (mmio.read(BASES[0] + 0x100, 4) === 0xffff_ffff) Atomics.add(stage.words, DONE, 1);
}

if (isMainThread) {
  test('a processor that waits on one thread is woken when its server goes on another', async () => {
    const xen = bootTestMachine(true);
    addDomain(xen, SERVER);
    addDomain(xen, GUEST);
    xen.nameDeviceModel(GUEST, SERVER);
    const stage = newStage(xen);
    await perform(import.meta.url, stage, ['leave', 'ask']);
    assert.deepEqual([stage.words[WRONG], stage.words[DONE]], [0, 1]);
  });

  test('two processors write and read registers of two devices, each access answered once', async () => {
    const xen = bootTestMachine(true);
    addDomain(xen, SERVER);
    addDomain(xen, GUEST, { vcpus: VCPUS });
    xen.nameDeviceModel(GUEST, SERVER);
    const stage = newStage(xen);
    await perform(import.meta.url, stage, ['answer', 'access 0', 'access 1']);
    assert.equal(stage.words[WRONG], 0);
    assert.equal(stage.words[DONE], VCPUS);
  });
} else {
  const stage = myPart();
  if (stage.part === 'answer') answer(stage);
  else if (stage.part === 'leave') leave(stage);
  else if (stage.part === 'ask') ask(stage);
  else access(stage, Number(stage.part.at(-1)));
}
