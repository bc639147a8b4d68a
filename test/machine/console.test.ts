// Consoles end to end, in every exposure mode: bytes there and back, sizes, ports, and what comes of resets.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { EchoEndpoint } from '../../src/devices/echo-endpoint.ts';
import { EXPOSURE_MODES, type ExposureMode } from '../../src/dma/exposure-modes.ts';
import {
  ConsoleScene,
  someBytes,
  terminal,
  terminalScene,
  TestEndpoint,
} from '../support/console.test.helper.ts';
import { ACCESSES } from '../support/scene.test.helper.ts';

/** A backend cannot map parts of pages. */
const accessesFor = (mode: ExposureMode) => ACCESSES.filter((access) => mode !== 'copy' || access === 'copy');

for (const mode of EXPOSURE_MODES) {
  for (const access of accessesFor(mode)) {
    test(`${mode}, backend by ${access}: an echo of 300 KiB comes back as it was written`, async () => {
      const scene = new ConsoleScene([terminal(new EchoEndpoint())], { mode, access });
      const port = await scene.open();
      const bytes = someBytes(300 * 1024);
      const written = port.write(bytes);
      assert.deepEqual(await scene.read(port, bytes.length), [...bytes]);
      await written;
      scene.finish();
    });
  }

  test(`${mode}: after a suspension the guest goes on where it was, and writes again what was not taken`, async () => {
    const { endpoint, scene } = terminalScene({ mode, access: 'copy' });
    const port = await scene.open();
    endpoint.allowance = 0;
    const [bytes, read] = [someBytes(10_000), port.read()];
    const written = port.write(bytes);
    await scene.rest();
    scene.guest.suspend();
    assert.deepEqual([scene.console.health, port.busy], ['waiting', true]);
    scene.guest.resume(scene.guest.ports, () => scene.place);
    endpoint.allow(Number.POSITIVE_INFINITY);
    await scene.machine.settle(written);
    assert.deepEqual(endpoint.bytes, [...bytes]);
    assert.deepEqual(endpoint.openings, [true, false, true]);
    endpoint.line.send(someBytes(100, 1));
    assert.deepEqual(await scene.machine.settle(read), someBytes(100, 1));
    scene.finish();
  });
}

test('three ports: each has its name, its kind and its own bytes', async () => {
  const endpoints = [new TestEndpoint(), new TestEndpoint(), new TestEndpoint()];
  const scene = new ConsoleScene([
    terminal(endpoints[0]),
    { name: 'org.qemu.guest_agent.0', isConsole: false, endpoint: endpoints[1] },
    { name: '', isConsole: false, endpoint: endpoints[2] },
  ]);
  await scene.rest();
  const { ports } = scene.console;
  assert.deepEqual(
    ports.map(({ id, name, isConsole, size, hostOpen }) => ({ id, name, isConsole, size, hostOpen })),
    [
      { id: 0, name: 'tty', isConsole: true, size: { columns: 80, rows: 24 }, hostOpen: true },
      { id: 1, name: 'org.qemu.guest_agent.0', isConsole: false, size: undefined, hostOpen: true },
      { id: 2, name: '', isConsole: false, size: undefined, hostOpen: true },
    ],
  );
  for (const port of ports) {
    port.open();
    await scene.machine.settle(port.write(someBytes(50, port.id)));
    assert.deepEqual(endpoints[port.id].bytes, [...someBytes(50, port.id)]);
    endpoints[port.id].line.send(someBytes(60, port.id + 8));
    assert.deepEqual(await scene.read(port, 60), [...someBytes(60, port.id + 8)]);
  }
  scene.finish();
});

test('a program that is done closes its port: the host is told, and what it sends waits for the next one', async () => {
  const { endpoint, scene } = terminalScene();
  const port = await scene.open();
  const read = port.read();
  port.close();
  assert.equal(await read, undefined);
  await assert.rejects(port.write(someBytes(1)), /not open/);
  await scene.rest();
  assert.equal(endpoint.line.send(someBytes(10)), 10);
  await scene.rest();
  port.open();
  assert.deepEqual(await scene.read(port, 10), [...someBytes(10)]);
  assert.deepEqual(endpoint.openings, [true, false, true]);
  scene.finish();
});

test('a guest writes to nobody: it waits until somebody is there', async () => {
  const { endpoint, scene } = terminalScene();
  const port = await scene.open();
  endpoint.line.setOpen(false);
  await scene.rest();
  assert.equal(port.hostOpen, false);
  const written = port.write(someBytes(10));
  await scene.rest();
  assert.equal(endpoint.bytes.length, 0);
  endpoint.line.setOpen(true);
  await scene.machine.settle(written);
  assert.equal(endpoint.bytes.length, 10);
  scene.finish();
});

test('detached while a write waits: it fails, readers get the end, and so does whoever waits for a port', async () => {
  const { endpoint, scene } = terminalScene();
  const port = await scene.open();
  endpoint.allowance = 10;
  const outcomes = Promise.allSettled([port.write(someBytes(5000)), port.read(), scene.console.port(5)]);
  await scene.rest();
  scene.finish();
  assert.deepEqual(
    (await outcomes).map(({ status }) => status),
    ['rejected', 'fulfilled', 'rejected'],
  );
  assert.equal(endpoint.bytes.length, 10);
  await assert.rejects(port.write(someBytes(1)), /detached/);
  await assert.rejects(scene.console.port(0), /detached/);
});

test('bytes arrive unchanged and in order, none lost or invented, whatever the sizes and whoever has to wait', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.nat(),
      fc.constantFrom(...EXPOSURE_MODES),
      fc.array(fc.integer({ min: 1, max: 12_000 }), { minLength: 1, maxLength: 6 }),
      fc.array(fc.integer({ min: 1, max: 9000 }), { minLength: 1, maxLength: 8 }),
      fc.integer({ min: 1, max: 200_000 }),
      async (seed, mode, writes, allowances, sent) => {
        const endpoint = new TestEndpoint();
        endpoint.allowance = 0;
        const scene = new ConsoleScene([terminal(endpoint)], { seed, mode, access: 'copy' });
        const port = await scene.open();
        const written = writes.map((length, salt) => port.write(someBytes(length, salt)));
        const outgoing = someBytes(sent, 77);
        let accepted = endpoint.line.send(outgoing);
        const incoming: number[] = [];
        for (const allowance of allowances) {
          endpoint.allow(allowance);
          await scene.rest();
          if (incoming.length < accepted) incoming.push(...(await scene.machine.settle(port.read()))!);
          accepted += endpoint.line.send(outgoing.subarray(accepted));
        }
        endpoint.allow(Number.POSITIVE_INFINITY);
        await scene.machine.settle(Promise.all(written));
        while (incoming.length < sent) {
          incoming.push(...(await scene.machine.settle(port.read()))!);
          accepted += endpoint.line.send(outgoing.subarray(accepted));
        }
        assert.deepEqual(incoming, [...outgoing]);
        assert.deepEqual(
          endpoint.bytes,
          writes.flatMap((length, salt) => [...someBytes(length, salt)]),
        );
        scene.finish();
      },
    ),
    { seed: 53, numRuns: 15 },
  );
});
