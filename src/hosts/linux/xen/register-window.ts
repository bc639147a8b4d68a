// The registers of one device in a guest's address space. The three of virtio-mmio that are no business of the device's
// own are answered here (virtio 1.3 §4.2.2): QueueNotify is noted and told of later, InterruptStatus and InterruptACK go
// with the line. After device-model.ts; before transports/virtio-mmio/device.ts.

import { MMIO_INTERRUPT_ACK, MMIO_INTERRUPT_STATUS, MMIO_QUEUE_NOTIFY } from '../../../abi/virtio-mmio.ts';
import type { MmioServer } from '../../../xen/backend-host.ts';
import type { MmioHandler } from '../../../xen/mmio.ts';
import type { InterruptLine } from './interrupt-line.ts';

/** Queues that a doorbell has a bit for. */
const DOORBELL_QUEUES = 64;

export interface WindowParts {
  /** Guest-physical address of the first register, and bytes of all. */
  readonly base: number;
  readonly size: number;
  readonly handler: MmioHandler;
  readonly onDoorbell: () => void;
  readonly line: InterruptLine;
  /** Takes the window away. */
  readonly end: (window: RegisterWindow) => void;
}

/** A window, as the guest (`read`, `write`) and as the backend (MmioServer) use it. */
export class RegisterWindow implements MmioServer {
  readonly base: number;
  readonly size: number;
  readonly #parts: WindowParts;
  #status = 0;
  #doorbellLow = 0;
  #doorbellHigh = 0;

  constructor(parts: WindowParts) {
    this.#parts = parts;
    this.base = parts.base;
    this.size = parts.size;
  }

  /** The guest reads `size` bytes (1, 2 or 4), `offset` bytes into the window. */
  read(offset: number, size: number): number {
    return offset === MMIO_INTERRUPT_STATUS ? this.#status : this.#parts.handler.read(offset, size);
  }

  write(offset: number, size: number, value: number): void {
    if (offset === MMIO_QUEUE_NOTIFY) this.#notify(value);
    else if (offset === MMIO_INTERRUPT_ACK) this.#acknowledge(value);
    else this.#parts.handler.write(offset, size, value);
  }

  /** Tells the backend of the queues that were notified, if any: after the guest's processor goes on. */
  ring(): void {
    if ((this.#doorbellLow | this.#doorbellHigh) !== 0) this.#parts.onDoorbell();
  }

  takeDoorbell(high: boolean): number {
    const bits = high ? this.#doorbellHigh : this.#doorbellLow;
    if (high) this.#doorbellHigh = 0;
    else this.#doorbellLow = 0;
    return bits >>> 0;
  }

  interrupt(bits: number): void {
    this.#status |= bits;
    this.#parts.line.raise();
  }

  clearInterrupts(): void {
    this.#status = 0;
    this.#parts.line.lower();
  }

  close(): void {
    this.#parts.end(this);
  }

  /** Queues from 64 on do not exist: who notifies one has notified nothing. */
  #notify(queue: number): void {
    if (queue >= DOORBELL_QUEUES) return;
    if (queue < 32) this.#doorbellLow |= 1 << queue;
    else this.#doorbellHigh |= 1 << (queue - 32);
  }

  /** Where another reason remains, the line rises anew: it may be one of which only the edge is noticed. */
  #acknowledge(bits: number): void {
    this.#status &= ~bits;
    this.#parts.line.lower();
    if (this.#status !== 0) this.#parts.line.raise();
  }
}
