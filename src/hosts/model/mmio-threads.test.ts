// Register accesses between real threads: the guest's processor sleeps until the server's has answered.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isMainThread } from 'node:worker_threads';
import { noTrace } from '../../trace.ts';
import type { DomainId, EventPort } from '../../xen/ids.ts';
import { addDomain, bootTestMachine } from './domains.test.helper.ts';
import { meet, myPart, newStage, perform, type Stage } from './threads.test.helper.ts';
import { sleepWhile } from './waiting.ts';

const ACCESSES = 1000;
const SERVER = 1 as DomainId;
const GUEST = 2 as DomainId;
const BASES = [0x0200_0000, 0x0200_0200];

// Words of the stage.
const WRONG = 0;
const DONE = 1;

/** Two windows, each with one register that holds what was last written to it. */
function answer(stage: Stage): void {
  const ports = stage.xen.ports(SERVER, sleepWhile, noTrace);
  for (const base of BASES) {
    const window = ports.serveMmio(GUEST, base, 0x200);
    let register = 0;
    const registers = {
      read: () => register,
      write: (_offset: number, _size: number, value: number) => {
        register = value;
      },
    };
    ports.events.onEvent(window.accessPort as EventPort, () => window.serve(registers));
  }
  meet(stage, 2);
  while (Atomics.load(stage.words, DONE) === 0) {
    ports.events.sleep(50);
    ports.events.poll();
  }
}

/** Writes a new value to each register and reads both back. */
function access(stage: Stage): void {
  const { mmio } = stage.xen.ports(GUEST, sleepWhile, noTrace);
  meet(stage, 2);
  for (let i = 0; i < ACCESSES; i++) {
    BASES.forEach((base, window) => {
      mmio.write(base + 0x100, 4, i * 2 + window);
    });
    BASES.forEach((base, window) => {
      if (mmio.read(base + 0x100, 4) !== i * 2 + window) Atomics.add(stage.words, WRONG, 1);
    });
  }
  Atomics.store(stage.words, DONE, 1);
}

if (isMainThread) {
  test('registers of two windows are written and read across threads, each access answered once', async () => {
    const xen = bootTestMachine(true);
    addDomain(xen, SERVER);
    addDomain(xen, GUEST);
    const stage = newStage(xen);
    await perform(import.meta.url, stage, ['answer', 'access']);
    assert.equal(stage.words[WRONG], 0);
    assert.equal(stage.words[DONE], 1);
  });
} else {
  const stage = myPart();
  if (stage.part === 'answer') answer(stage);
  else access(stage);
}
