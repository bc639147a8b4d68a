// What every implementation of BackendHost.serveMmio (src/xen/backend-host.ts) must do, whoever traps the accesses.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { MMIO_INTERRUPT_ACK, MMIO_INTERRUPT_STATUS, MMIO_QUEUE_NOTIFY } from '../../src/abi/virtio-mmio.ts';
import type { BackendHost, MmioServer } from '../../src/xen/backend-host.ts';
import type { DomainId } from '../../src/xen/ids.ts';
import type { MmioBus, MmioHandler } from '../../src/xen/mmio.ts';

/** A host under test, and a guest whose processor is at the test's command. */
export interface ServerUnderTest {
  readonly host: BackendHost;
  readonly guest: DomainId;
  /** An id that no domain has. */
  readonly nobody: DomainId;
  /** Accesses of the guest's processor; the host's events are handled meanwhile. */
  readonly bus: MmioBus;
  /** How often the guest was interrupted. */
  interrupts(): number;
  close?(): void;
}

const BASE = 0xd000_0000;
const SIZE = 0x200;
const IRQ = 5;

/** Registers that remember. */
class Registers implements MmioHandler {
  readonly seen: string[] = [];
  value = 0x1234_5678;

  read(offset: number, size: number): number {
    this.seen.push(`r${size} ${offset.toString(16)}`);
    return this.value;
  }

  write(offset: number, size: number, value: number): void {
    this.seen.push(`w${size} ${offset.toString(16)} ${value.toString(16)}`);
  }
}

/** Runs the contract. */
export function mmioServerContract(name: string, make: () => ServerUnderTest): void {
  const using = (run: (made: ServerUnderTest) => void) => () => {
    const made = make();
    try {
      run(made);
    } finally {
      made.close?.();
    }
  };
  const serve = (
    { host, guest }: ServerUnderTest,
    base = BASE,
    doorbell: () => void = () => undefined,
  ): { registers: Registers; server: MmioServer } => {
    const registers = new Registers();
    return { registers, server: host.serveMmio(guest, base, SIZE, registers, doorbell, IRQ) };
  };

  describe(`${name} serves registers as the port promises`, () => {
    test(
      'accesses of 1, 2 and 4 bytes come to their device, by offset',
      using((made) => {
        const { registers, server } = serve(made);
        const other = serve(made, BASE + SIZE);
        assert.equal(made.bus.read(BASE + 8, 4), 0x1234_5678);
        assert.equal(made.bus.read(BASE + 0x101, 1), 0x78);
        made.bus.write(BASE + SIZE + 0x102, 2, 0xabcd);
        made.bus.write(BASE + 0x70, 4, 0xffff_ffff);
        assert.deepEqual(registers.seen, ['r4 8', 'r1 101', 'w4 70 ffffffff']);
        assert.deepEqual(other.registers.seen, ['w2 102 abcd']);
        server.close();
        other.server.close();
      }),
    );

    test(
      'where nothing is served the guest reads all ones, and so it does when a device has gone',
      using((made) => {
        const { registers, server } = serve(made);
        assert.equal(made.bus.read(BASE + SIZE, 4), 0xffff_ffff);
        server.close();
        assert.equal(made.bus.read(BASE, 4), 0xffff_ffff);
        made.bus.write(BASE, 4, 1);
        assert.deepEqual(registers.seen, []);
      }),
    );

    test(
      'QueueNotify sets the bit of its queue and rings; the bits are taken once',
      using((made) => {
        let rings = 0;
        const taken: number[][] = [];
        const { server, registers } = serve(made, BASE, () => {
          rings++;
          taken.push([server.takeDoorbell(false), server.takeDoorbell(true)]);
        });
        for (const queue of [0, 31, 32, 63]) {
          made.bus.write(BASE + MMIO_QUEUE_NOTIFY, 4, queue);
          made.host.events.poll();
        }
        assert.equal(rings, 4);
        assert.deepEqual(taken, [
          [1, 0],
          [2 ** 31, 0],
          [0, 1],
          [0, 2 ** 31],
        ]);
        assert.deepEqual([server.takeDoorbell(false), server.takeDoorbell(true)], [0, 0]);
        assert.deepEqual(registers.seen, []);
        server.close();
      }),
    );

    test(
      'InterruptStatus has the reasons that were not acknowledged',
      using((made) => {
        const { server, registers } = serve(made);
        const status = () => made.bus.read(BASE + MMIO_INTERRUPT_STATUS, 4);
        assert.equal(status(), 0);
        server.interrupt(1);
        assert.equal(status(), 1);
        server.interrupt(2);
        assert.equal(status(), 3);
        made.bus.write(BASE + MMIO_INTERRUPT_ACK, 4, 1);
        assert.equal(status(), 2);
        server.clearInterrupts();
        assert.equal(status(), 0);
        assert.deepEqual(registers.seen, []);
        server.close();
      }),
    );

    test(
      'each reason that comes when there was none interrupts the guest',
      using((made) => {
        const { server } = serve(made);
        const before = made.interrupts();
        for (let i = 1; i <= 3; i++) {
          server.interrupt(1);
          assert.equal(made.interrupts(), before + i);
          made.bus.write(BASE + MMIO_INTERRUPT_ACK, 4, 1);
        }
        server.close();
      }),
    );

    test(
      'a place that is taken, and a guest that is not there, are refused, and the first device goes on',
      using((made) => {
        const { registers, server } = serve(made);
        assert.throws(() => serve(made), RangeError);
        assert.throws(() => serve(made, BASE + SIZE - 4), RangeError);
        const { host, nobody } = made;
        assert.throws(
          () => host.serveMmio(nobody, BASE, SIZE, new Registers(), () => undefined, IRQ),
          RangeError,
        );
        made.bus.read(BASE, 4);
        assert.deepEqual(registers.seen, ['r4 0']);
        server.close();
        const again = serve(made);
        again.server.close();
      }),
    );

    test(
      'a handler that takes its own device away is not called again',
      using((made) => {
        const { host, guest, bus } = made;
        const server: MmioServer = host.serveMmio(
          guest,
          BASE,
          SIZE,
          {
            read: () => 0,
            write: () => server.close(),
          },
          () => undefined,
          IRQ,
        );
        bus.write(BASE, 4, 1);
        assert.equal(bus.read(BASE, 4), 0xffff_ffff);
      }),
    );
  });
}
