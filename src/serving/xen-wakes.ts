// Where the thread of a backend sleeps, and all that wakes it: guests (event channels), the store, the main thread, the
// kernel, and descriptors of devices. After xen-thread.ts, before hosts/linux/epoll.ts.

import type { Arena } from '../hosts/linux/arena.ts';
import { Epoll, Eventfds } from '../hosts/linux/epoll.ts';
import type { Libc } from '../hosts/linux/libc.ts';
import { TransferScratch } from '../hosts/linux/transfer-scratch.ts';
import { Watches } from '../hosts/linux/watches.ts';
import { WORKER_BLOCK } from './counter-blocks.ts';
import type { DeviceHosting } from './devices.ts';
import { KernelWork } from './kernel-work.ts';

const EVENTS = 0;
const STORE = 1;
const MAIL = 2;
const KERNEL = 3;

/** A channel to the store, as far as a sleeper knows it. */
export interface PolledChannel {
  readonly fd: number;
  /** Reads what there is, and sends what waits. */
  poll(): boolean;
}

/** What a loop needs of the place where it sleeps. */
export interface Wakes {
  /** Whether promises may have something to go on with, for which a turn of Node's event loop is needed; asked once. */
  takeTurn(): boolean;
  /** Looks at what has woken the thread, after having slept for it if `maySleep`. Devices' own work is done on the way. */
  look(maySleep: boolean): void;
  /** Hands to the kernel what was begun, and takes what has ended. Returns whether anything has. */
  endTurn(): boolean;
}

/** One epoll for all. */
export class XenWakes implements Wakes {
  /** What devices of this thread are made with. */
  readonly hosting: DeviceHosting;
  readonly #epoll: Epoll;
  readonly #eventfds: Eventfds;
  readonly #watches: Watches;
  readonly #kernel: KernelWork;
  readonly #store: PolledChannel;
  readonly #mail: number;
  readonly #counters: Float64Array;
  /** Something is there to go on with at the start. */
  #turnDue = true;

  /**
   * @param mail eventfd by which the main thread wakes this one
   * @param counters where sleeps are counted (counter-blocks.ts)
   */
  constructor(libc: Libc, arena: Arena, store: PolledChannel, mail: number, counters: Float64Array) {
    this.#epoll = new Epoll(libc, arena);
    this.#eventfds = new Eventfds(libc, arena);
    this.#watches = new Watches(libc, arena, this.#epoll);
    this.#kernel = new KernelWork(libc, arena, this.#epoll, KERNEL);
    this.#store = store;
    this.#mail = mail;
    this.#counters = counters;
    this.hosting = {
      ...{ libc, arena, scratch: new TransferScratch(arena) },
      ...{ watches: this.#watches, uring: this.#kernel.uring },
    };
    this.#epoll.add(store.fd, STORE);
    this.#epoll.add(mail, MAIL);
  }

  /** Wakes the thread when one of these can be read: events of guests, which are taken elsewhere. */
  addEvents(descriptors: readonly number[]): void {
    for (const fd of descriptors) this.#epoll.add(fd, EVENTS);
  }

  takeTurn(): boolean {
    const due = this.#turnDue;
    this.#turnDue = false;
    return due;
  }

  look(maySleep: boolean): void {
    if (maySleep && !this.#turnDue && !this.#kernel.arm()) this.#sleep();
    else this.#epoll.wait(0, this.#wake);
  }

  #sleep(): void {
    const began = performance.now();
    this.#epoll.wait(-1, this.#wake);
    this.#counters[WORKER_BLOCK.at.sleeps]++;
    this.#counters[WORKER_BLOCK.at.sleptSeconds] += (performance.now() - began) / 1000;
  }

  endTurn(): boolean {
    return this.#kernel.endTurn();
  }

  close(): void {
    this.#watches.close();
    this.#kernel.close();
    this.#epoll.close();
  }

  readonly #wake = (token: number): void => {
    if (this.#watches.wake(token)) return;
    if (token === STORE) this.#store.poll();
    else if (token === MAIL) this.#eventfds.clear(this.#mail);
    else return;
    this.#turnDue = true;
  };
}
