// A queue worker: serves rings in a thread of its own, does what the control thread asks for between two turns, and
// sleeps in epoll until a driver, that thread, the kernel or a device's own descriptor wakes it.
// After mailbox.ts, before ring-poller.ts.

import { ProtocolViolation } from '../errors.ts';
import { Arena } from '../hosts/linux/arena.ts';
import { Epoll, Eventfds } from '../hosts/linux/epoll.ts';
import type { Libc } from '../hosts/linux/libc.ts';
import { PeerEventfds } from '../hosts/linux/peer-eventfds.ts';
import { TransferScratch } from '../hosts/linux/transfer-scratch.ts';
import { Watches } from '../hosts/linux/watches.ts';
import { LocalRings } from '../transports/vhost-user/local-rings.ts';
import type { DeviceOffer } from '../virtio/device.ts';
import { WORKER_BLOCK } from './counter-blocks.ts';
import { DeviceCounters } from './device-counters.ts';
import { type DeviceHosting, makeDevice, type ServedDevice } from './devices.ts';
import { KernelWork } from './kernel-work.ts';
import type { MailboxServer } from './mailbox.ts';
import { PollTime } from './poll-time.ts';
import { RingPoller, type ServedRing } from './ring-poller.ts';
import {
  offerOf,
  type RingCommand,
  type RingEvent,
  receivedMemory,
  receivedSetup,
  type SentSetup,
  type WorkerCommand,
} from './ring-commands.ts';
import type { WorkerTracing } from './thread-tracing.ts';

/** Scratch memory for system calls, bytes. */
const ARENA = 1 << 20;
/** The mailbox's token in epoll; rings have the others. */
const MAIL = 0;
const KERNEL = 1;
/** Turns without work between two looks at the clock, which costs as much as a few looks at a ring. */
const LOOKS = 8;
/** Turns with work between two looks at the rings that sleep. */
const BUSY_TURNS = 16;

/** An instance of a device. */
interface Instance extends ServedDevice {
  readonly counters: DeviceCounters;
}

/** What a worker is made of. */
export interface QueueWorkerParts {
  readonly libc: Libc;
  readonly mail: MailboxServer;
  /** Tells the control thread. */
  readonly tell: (event: RingEvent) => void;
  /** Longest time for which a worker looks at rings that have nothing, in microseconds; 0 for never. */
  readonly pollMicroseconds: number;
  /** Whether guests share the process that do not trust each other. */
  readonly sealed: boolean;
  /** Whether the process is about to end, in which case there is nobody to wait for. */
  readonly quitting: () => boolean;
  /** Where it counts what it does itself (counter-blocks.ts). */
  readonly counters: Float64Array;
  /** Who is told of requests, and what they have in hand, if anybody is. */
  readonly tracing: WorkerTracing | undefined;
}

type InstallCommand = Extract<WorkerCommand, { readonly kind: 'install' }>;

/** One thread's rings. */
export class QueueWorker {
  readonly #libc: Libc;
  readonly #mail: MailboxServer;
  readonly #tell: QueueWorkerParts['tell'];
  readonly #epoll: Epoll;
  readonly #eventfds: Eventfds;
  /** Interrupts a driver by its descriptor. */
  readonly #signal: (fd: number) => void;
  readonly #pollTime: PollTime;
  readonly #quitting: () => boolean;
  /** Instances, by endpoint. */
  readonly #devices = new Map<number, Instance>();
  /** Sessions whose rings, or some of them, are served here. */
  readonly #sessions = new Map<number, LocalRings>();
  /** Descriptors that devices have asked to be told of. */
  readonly #watches: Watches;
  readonly #hosting: DeviceHosting;
  readonly #poller = new RingPoller((ring, error) => this.#break(ring, error));
  readonly #counters: Float64Array;
  readonly #tracing: WorkerTracing | undefined;
  /** What devices have under way in the kernel, if they have asked for that. */
  readonly #kernel: KernelWork;
  /** When something has ended there last. */
  #endedAt = 0;
  #nextToken = KERNEL + 1;
  #ended = false;

  constructor(parts: QueueWorkerParts) {
    const { libc, mail, tell, pollMicroseconds, sealed, counters, quitting, tracing } = parts;
    const arena = new Arena(libc, ARENA);
    this.#libc = libc;
    this.#mail = mail;
    this.#tell = tell;
    this.#quitting = quitting;
    this.#counters = counters;
    this.#tracing = tracing;
    this.#epoll = new Epoll(libc, arena);
    this.#eventfds = new Eventfds(libc, arena);
    this.#signal = sealed ? this.#signalSafely(arena) : (fd) => this.#signalFast(fd);
    this.#pollTime = new PollTime(pollMicroseconds / 1000);
    this.#watches = new Watches(libc, arena, this.#epoll);
    this.#kernel = new KernelWork(libc, arena, this.#epoll, KERNEL);
    this.#hosting = {
      ...{ libc, arena, scratch: new TransferScratch(arena) },
      watches: this.#watches,
      uring: this.#kernel.uring,
    };
    this.#epoll.add(mail.wake, MAIL);
  }

  /** Serves until it is told to end. */
  run(): void {
    let turns = 0;
    while (!this.#ended && !this.#quitting()) {
      if (this.#mail.isWaiting) this.#readMail();
      const looked = this.#poller.look();
      const busy = this.#endTurn() || looked;
      turns++;
      this.#counters[WORKER_BLOCK.at.looks]++;
      if (busy) this.#counters[WORKER_BLOCK.at.busyLooks]++;
      if (turns % (busy ? BUSY_TURNS : LOOKS) !== 0) continue;
      this.#poller.letSleep(this.#pollTime.current);
      if (this.#poller.anyAwake) this.#epoll.wait(0, this.#wakeUp);
      else if (!this.#ended && !this.#mail.isWaiting && !this.#isExpecting()) this.#sleep();
    }
    this.#watches.close();
    this.#kernel.close();
    this.#epoll.close();
  }

  /** The peer cannot make this wait, whatever it does. */
  #signalSafely(arena: Arena): (fd: number) => void {
    const peers = new PeerEventfds(this.#libc, arena);
    return (fd) => void peers.ring(fd);
  }

  /** Costs half as much. A peer that makes this wait keeps itself waiting, until the control thread wants something. */
  #signalFast(fd: number): void {
    this.#mail.writing = fd;
    this.#eventfds.ring(fd);
    this.#mail.writing = -1;
  }

  /** Hands to the kernel what this turn has begun, and takes what has ended. Returns whether anything has. */
  #endTurn(): boolean {
    if (!this.#kernel.endTurn()) return false;
    this.#endedAt = performance.now();
    return true;
  }

  /** Whether something may end in the kernel so soon that a sleep would cost more. */
  #isExpecting(): boolean {
    return this.#kernel.isBusy && performance.now() < this.#endedAt + this.#pollTime.current;
  }

  #sleep(): void {
    if (this.#kernel.arm()) return;
    const began = performance.now();
    this.#epoll.wait(-1, this.#wakeUp);
    const slept = performance.now() - began;
    this.#pollTime.slept(slept);
    this.#counters[WORKER_BLOCK.at.sleeps]++;
    this.#counters[WORKER_BLOCK.at.sleptSeconds] += slept / 1000;
  }

  readonly #wakeUp = (token: number): void => {
    if (token === MAIL) {
      this.#eventfds.clear(this.#mail.wake);
      return;
    }
    if (token === KERNEL || this.#watches.wake(token)) return;
    this.#poller.notified(token);
  };

  #readMail(): void {
    this.#mail.answer((command) => this.#obey(command as WorkerCommand));
  }

  #obey(command: WorkerCommand): unknown {
    switch (command.kind) {
      case 'end':
        this.#ended = true;
        return undefined;
      case 'install':
        return this.#install(command);
      case 'remove':
        return this.#remove(command.endpoint);
      case 'open':
        return this.#open(command.session, command.endpoint);
      default:
        return this.#obeySession(command, this.#sessions.get(command.session)!);
    }
  }

  #obeySession(command: Exclude<RingCommand, { kind: 'open' }>, rings: LocalRings): unknown {
    const { session } = command;
    switch (command.kind) {
      case 'close':
        rings.meter?.exposed(0);
        return this.#sessions.delete(session);
      case 'features':
        return rings.setFeatures(command.features);
      case 'memory':
        return rings.setMemory(receivedMemory(this.#libc, command.memory));
      case 'translate':
        return rings.translate(command.entry);
      case 'refuse':
        return rings.refuse(command.iova);
      case 'invalidate':
        return rings.invalidate(command.iova, command.size);
      case 'start':
        return this.#start(session, rings, command.setup);
      case 'stop':
        return this.#stop(session, command.index);
      case 'call':
        return rings.setCall(command.index, command.fd);
      case 'kick':
        return this.#kick(session, command.index);
      case 'reset':
        return rings.reset();
    }
  }

  #install({ endpoint, device, first, block }: InstallCommand): DeviceOffer {
    const served = makeDevice(device, this.#hosting, first);
    const counters = new DeviceCounters(block, device.kind, this.#tracing?.requestsOf(endpoint));
    this.#devices.set(endpoint, { ...served, counters });
    return offerOf(served.device);
  }

  /** Returns whether what was written lasts. */
  #remove(endpoint: number): boolean {
    const served = this.#devices.get(endpoint)!;
    const lasts = served.flush();
    served.close();
    this.#devices.delete(endpoint);
    return lasts;
  }

  #open(session: number, endpoint: number): void {
    const { device, counters } = this.#devices.get(endpoint)!;
    const events = {
      interrupt: (index: number) => this.#tell({ session, kind: 'interrupt', index }),
      failed: (index: number, { clause, detail }: { clause: string; detail: string }) =>
        this.#tell({ session, kind: 'failed', index, clause, detail }),
      miss: (iova: number, right: number) => this.#tell({ session, kind: 'miss', iova, right }),
      configChanged: (config: Uint8Array) => this.#tell({ session, kind: 'config', config }),
    };
    const needs = this.#tracing?.needsOf(endpoint);
    this.#sessions.set(session, new LocalRings(device, events, this.#signal, counters, undefined, needs));
  }

  #start(session: number, rings: LocalRings, setup: SentSetup): boolean {
    if (!rings.start(receivedSetup(this.#libc, setup))) return false;
    const { index, kick } = setup;
    const token = this.#nextToken++;
    const ring: ServedRing = { session, rings, index, token, kick };
    if (kick >= 0) this.#watchKick(ring);
    this.#poller.add(ring);
    return true;
  }

  #watchKick({ rings, index, kick, token }: ServedRing): void {
    try {
      this.#epoll.addEdges(kick, token);
    } catch (error) {
      rings.stop(index);
      const reason = error instanceof Error ? error.message : String(error);
      throw new ProtocolViolation('vhost-user SET_VRING_KICK', `ring ${index}: ${reason}`);
    }
  }

  #stop(session: number, index: number): number {
    const ring = this.#poller.find(session, index)!;
    this.#poller.remove(ring);
    if (ring.kick >= 0) this.#epoll.remove(ring.kick);
    return ring.rings.stop(index);
  }

  #kick(session: number, index: number): void {
    const ring = this.#poller.find(session, index);
    if (ring !== undefined) this.#poller.notified(ring.token);
  }

  #break({ session }: ServedRing, error: unknown): void {
    const reason = error instanceof Error ? (error.stack ?? error.message) : String(error);
    this.#tell({ session, kind: 'broken', reason });
  }
}
