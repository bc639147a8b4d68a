// Runs the rings of a session in queue workers: what the session wants is told to each worker that serves the device,
// and what a worker says comes back to the session. After vhost-connection.ts, before ring-commands.ts.

import { ProtocolViolation } from '../errors.ts';
import type { Translation } from '../memory/iotlb.ts';
import { headsUnderWay } from '../transports/vhost-user/inflight-journal.ts';
import type { RingEvents, RingMemory, RingRunner, RingSetup } from '../transports/vhost-user/platform.ts';
import {
  type RingCommand,
  type RingEvent,
  sentMemory,
  sentSetup,
  type WorkerCommand,
} from './ring-commands.ts';

/** Calls a worker and returns its answer. Throws the ProtocolViolation that it met, or an Error. */
export type CallWorker = (command: WorkerCommand) => unknown;

/** A command without the session that it is for. */
type Command<C = RingCommand> = C extends { readonly session: number } ? Omit<C, 'session'> : never;

/** The rings of one session. */
export class SpreadRings implements RingRunner {
  readonly #session: number;
  readonly #events: RingEvents;
  /** Ring i is served by worker i, counted round. */
  readonly #workers: readonly CallWorker[];
  /** Rings that run. */
  readonly #running = new Map<number, RingSetup>();

  /** @param workers those that have an instance of the device of `endpoint` */
  constructor(session: number, endpoint: number, workers: readonly CallWorker[], events: RingEvents) {
    this.#session = session;
    this.#events = events;
    this.#workers = workers;
    this.#tellAll({ kind: 'open', endpoint });
  }

  setFeatures(features: bigint): void {
    this.#tellAll({ kind: 'features', features });
  }

  setMemory(memory: RingMemory): void {
    this.#tellAll({ kind: 'memory', memory: sentMemory(memory) });
  }

  translate(entry: Translation): void {
    this.#tellAll({ kind: 'translate', entry });
  }

  refuse(iova: number): void {
    this.#tellAll({ kind: 'refuse', iova });
  }

  invalidate(iova: number, size: number): void {
    this.#tellAll({ kind: 'invalidate', iova, size });
  }

  start(setup: RingSetup): boolean {
    const isRunning = this.#ask(setup.index, { kind: 'start', setup: sentSetup(setup) }) === true;
    if (isRunning) this.#running.set(setup.index, setup);
    return isRunning;
  }

  stop(index: number): number {
    const base = this.#ask(index, { kind: 'stop', index }) as number;
    this.#running.delete(index);
    return base;
  }

  /** What is under way in rings that could not be stopped, in words, as far as the frontend's buffer tells. */
  get unanswered(): string {
    return [...this.#running.values()].map(unansweredIn).join('; ');
  }

  setCall(index: number, fd: number): void {
    this.#ask(index, { kind: 'call', index, fd });
  }

  kick(index: number): void {
    this.#ask(index, { kind: 'kick', index });
  }

  reset(): void {
    this.#tellAll({ kind: 'reset' });
  }

  /** The session has ended: the workers close what they have open for it. */
  close(): void {
    this.#tellAll({ kind: 'close' });
  }

  /** A worker has something to say. */
  hear(event: RingEvent): void {
    if (event.kind === 'interrupt') this.#events.interrupt(event.index);
    else if (event.kind === 'failed')
      this.#events.failed(event.index, new ProtocolViolation(event.clause, event.detail));
    else if (event.kind === 'miss') this.#events.miss(event.iova, event.right);
    else if (event.kind === 'config') this.#events.configChanged(event.config);
  }

  #ask(index: number, command: Command): unknown {
    return this.#workers[index % this.#workers.length]({ session: this.#session, ...command } as RingCommand);
  }

  #tellAll(command: Command): void {
    for (const call of this.#workers) call({ session: this.#session, ...command } as RingCommand);
  }
}

function unansweredIn({ index, size, inflight }: RingSetup): string {
  if (inflight === undefined)
    return `queue ${index}: what is under way is lost, for the frontend keeps no buffer of it`;
  const heads = headsUnderWay(inflight, size);
  return heads.length === 0
    ? `queue ${index}: nothing is under way`
    : `queue ${index}: ${heads.length} requests, of heads ${heads.join(', ')}, are for the next backend`;
}
