// The control thread's work: takes frontends' connections, reads their messages, and carries what queue workers say to
// the sessions. It alone maps and unmaps guests' memory. After control-thread.ts, before vhost-connection.ts.

import { ProtocolViolation } from '../errors.ts';
import { Arena } from '../hosts/linux/arena.ts';
import { Epoll, Eventfds } from '../hosts/linux/epoll.ts';
import type { Libc } from '../hosts/linux/libc.ts';
import { PeerEventfds } from '../hosts/linux/peer-eventfds.ts';
import type { DeviceOffer } from '../virtio/device.ts';
import { CONTROL_BLOCK, controlBlock, queueBlock } from './counter-blocks.ts';
import { type DeviceSpec, spreads } from './devices.ts';
import { Listeners } from './listeners.ts';
import { WorkerStuck } from './mailbox.ts';
import type { RingEvent } from './ring-commands.ts';
import type { RingRunner } from '../transports/vhost-user/platform.ts';
import type { TracedRings } from './traced-rings.ts';
import type { CallWorker } from './spread-rings.ts';
import { VhostConnection } from './vhost-connection.ts';

const ARENA = 16 * 1024;
/** The token of the eventfd that wakes this thread; sockets have the others. */
const WAKE = 0;

/** More turns of messages than the kernel keeps for a connection. */
const LAST_TURNS = 8;

/** A device and where its frontend connects. */
export interface Endpoint {
  readonly name: string;
  readonly device: DeviceSpec;
  /** A listening socket, or one that is connected. */
  readonly fd: number;
  readonly listening: boolean;
}

/** What happened, for the log. */
export interface Notice {
  readonly level: 'info' | 'warn' | 'error';
  readonly device: string;
  readonly message: string;
  /** The rule that a frontend broke. */
  readonly clause?: string;
}

/** What the control thread is made of. */
export interface ControlParts {
  readonly libc: Libc;
  /** Eventfd that wakes it. */
  readonly wake: number;
  readonly workers: readonly CallWorker[];
  /** Takes the next thing that a worker has said; undefined when there is nothing. */
  readonly nextEvent: () => RingEvent | undefined;
  readonly notify: (notice: Notice) => void;
  /** Offer VIRTIO_F_ACCESS_PLATFORM and serve no driver without. */
  readonly restricted: boolean;
  /** Refuse memory that may shrink. */
  readonly sealed: boolean;
  /** Whether the process is about to end, in which case there is nobody to wait for. */
  readonly quitting: () => boolean;
  /** Has workers answer soon or never: all is to end. */
  readonly hurry: () => void;
  /** Puts a trace in front of the rings of a session at an endpoint, if there is one. */
  readonly traceRings: ((endpoint: number, rings: RingRunner) => TracedRings) | undefined;
}

/** An endpoint, and the frontend that it serves at the moment. */
interface Post {
  readonly endpoint: Endpoint;
  readonly number: number;
  /** Workers that have an instance of the device, and what it offers. */
  readonly workers: readonly CallWorker[];
  readonly offer: { -readonly [K in keyof DeviceOffer]: DeviceOffer[K] };
  /** What this thread counts of it. */
  readonly block: Float64Array;
  connection: VhostConnection | undefined;
  /** Tokens of its sockets. */
  token: number;
  channelToken: number;
  channel: VhostConnection['channel'];
}

/** All endpoints of a process. */
export class Control {
  readonly #parts: ControlParts;
  readonly #epoll: Epoll;
  readonly #eventfds: Eventfds;
  readonly #peers: PeerEventfds;
  readonly #posts: Post[] = [];
  readonly #ready = new Map<number, () => void>();
  readonly #listeners: Listeners;
  #nextToken = WAKE + 1;
  #nextSession = 0;
  #ended = false;
  /** At the end: devices whose data may not survive a power cut, and devices of workers that hang. */
  readonly #unflushed: string[] = [];
  readonly #stuck: string[] = [];

  constructor(parts: ControlParts) {
    const arena = new Arena(parts.libc, ARENA);
    this.#parts = parts;
    this.#epoll = new Epoll(parts.libc, arena);
    this.#eventfds = new Eventfds(parts.libc, arena);
    this.#peers = new PeerEventfds(parts.libc, arena);
    this.#epoll.add(parts.wake, WAKE);
    this.#listeners = new Listeners({
      libc: parts.libc,
      watch: (fd, ready) => this.#watch(fd, ready),
      unwatch: (fd, token) => this.#unwatch(fd, token),
      now: () => performance.now(),
    });
  }

  /** Serves one more endpoint. Throws what its device's parts throw, such as ImageError. */
  add(endpoint: Endpoint, counters: SharedArrayBuffer): void {
    const number = this.#posts.length;
    const { workers, offer } = this.#install(number, endpoint.device, counters);
    const post: Post = {
      ...{ endpoint, number, workers, offer, block: controlBlock(counters) },
      ...{ connection: undefined, token: 0, channelToken: 0, channel: undefined },
    };
    this.#posts.push(post);
    if (endpoint.listening) this.#listen(post);
    else this.#connect(post, endpoint.fd);
  }

  /** Serves until `end`; `mail` is called when somebody has woken this thread. */
  run(mail: () => void): void {
    while (!this.#ended && !this.#parts.quitting()) {
      this.#epoll.wait(this.#listeners.patience, (token) => {
        if (token === WAKE) this.#eventfds.clear(this.#parts.wake);
        else this.#ready.get(token)?.();
      });
      this.#listeners.tick();
      for (let event = this.#parts.nextEvent(); event !== undefined; event = this.#parts.nextEvent())
        this.#hear(event);
      mail();
    }
  }

  /** What went wrong at the end. */
  get failure(): string | undefined {
    const failures = [
      ...saidOf('what was written last may be lost, for it could not be flushed', this.#unflushed),
      ...saidOf('not ended in order, for a queue worker hangs', this.#stuck),
    ];
    return failures.length === 0 ? undefined : failures.join('; ');
  }

  /** Ends all connections, makes what was written last, and closes all devices: as far as disks allow it in the time. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#parts.hurry();
    for (const post of this.#posts) {
      if (post.connection !== undefined) this.#disconnect(post);
      const endings = post.workers.map((call) => removed(call, post.number));
      if (endings.includes('unflushed')) this.#unflushed.push(post.endpoint.name);
      if (endings.includes('stuck')) this.#stuck.push(post.endpoint.name);
    }
  }

  /** Makes the instances of a device. One worker more for each queue more, from another one on for each endpoint. */
  #install(
    endpoint: number,
    device: DeviceSpec,
    counters: SharedArrayBuffer,
  ): Pick<Post, 'workers' | 'offer'> {
    const all = this.#parts.workers;
    const install = (i: number): DeviceOffer => {
      const block = queueBlock(counters, i);
      const command = { kind: 'install', endpoint, device, first: i === 0, block } as const;
      return all[(endpoint + i) % all.length](command) as DeviceOffer;
    };
    const offer = install(0);
    const count = spreads(device) ? Math.min(offer.queueSizes.length, all.length) : 1;
    for (let i = 1; i < count; i++) install(i);
    return { offer, workers: Array.from({ length: count }, (_, i) => all[(endpoint + i) % all.length]) };
  }

  #watch(fd: number, ready: () => void): number {
    const token = this.#nextToken++;
    this.#ready.set(token, ready);
    this.#epoll.add(fd, token);
    return token;
  }

  #unwatch(fd: number, token: number): void {
    this.#ready.delete(token);
    this.#epoll.remove(fd);
  }

  #listen(post: Post): void {
    this.#listeners.add({
      fd: post.endpoint.fd,
      taken: (fd) => this.#taken(post, fd),
      stuck: (reason) =>
        this.#say(
          post,
          'warn',
          `${reason}; it is tried again when one ends, and each second (limit: ulimit -n)`,
        ),
    });
  }

  #taken(post: Post, fd: number): void {
    this.#hearOut(post);
    if (post.connection === undefined) {
      this.#connect(post, fd);
      return;
    }
    // Case T16: one frontend for a device; the one that is there notices nothing.
    this.#parts.libc.close(fd);
    post.block[CONTROL_BLOCK.at.refused]++;
    this.#say(post, 'warn', 'refused a second frontend: one is being served');
  }

  /** A frontend may have gone before the next one came, behind messages that nobody has read. */
  #hearOut(post: Post): void {
    for (let turns = 0; turns < LAST_TURNS && post.connection !== undefined; turns++)
      this.#readable(post, (connection) => connection.readable());
  }

  #connect(post: Post, fd: number): void {
    const { libc, restricted, sealed, traceRings } = this.#parts;
    const session = this.#nextSession++;
    const { number: endpoint, offer: device, workers } = post;
    try {
      post.connection = new VhostConnection({
        ...{ libc, fd, session, endpoint, device, restricted, sealed, workers },
        signal: this.#signal,
        onRefused: (request, { detail, clause }) =>
          this.#say(post, 'warn', `refused ${request}: ${detail}`, clause),
        traceRings: traceRings && ((rings) => traceRings(endpoint, rings)),
      });
    } catch (error) {
      libc.close(fd);
      this.#say(post, 'error', `cannot serve a frontend: ${messageOf(error)}`);
      return;
    }
    post.token = this.#watch(fd, () => this.#readable(post, (connection) => connection.readable()));
    post.block[CONTROL_BLOCK.at.sessions]++;
    post.block[CONTROL_BLOCK.at.connectedSince] = Date.now() / 1000;
    countConnection(post);
    this.#say(post, 'info', 'a frontend has connected');
  }

  /** Pipes are taken as ends of our own, which do not block. */
  readonly #signal = (fd: number): void => {
    if (!this.#peers.ring(fd)) this.#eventfds.ring(fd);
  };

  #readable(post: Post, read: (connection: VhostConnection) => boolean): void {
    const { connection } = post;
    if (connection === undefined) return;
    this.#guard(post, () => {
      if (read(connection)) this.#followChannel(post, connection);
      else this.#disconnect(post, 'the frontend has gone');
    });
  }

  /** What goes wrong in a connection ends it, and nothing else. */
  #guard(post: Post, step: () => void): void {
    try {
      step();
    } catch (error) {
      if (error instanceof ProtocolViolation)
        this.#disconnect(post, `closed the connection: ${error.detail}`, 'warn', error.clause);
      else this.#disconnect(post, `closed the connection: ${messageOf(error)}`, 'error');
    }
    countConnection(post);
  }

  /** The frontend may bring a second socket, or another one, with any message. */
  #followChannel(post: Post, connection: VhostConnection): void {
    const { channel } = connection;
    if (channel === post.channel) return;
    // A descriptor that was closed has left epoll by itself.
    this.#ready.delete(post.channelToken);
    post.channel = channel;
    if (channel === undefined) return;
    post.channelToken = this.#watch(channel.socket.fd, () => this.#readChannel(post, connection));
  }

  #readChannel(post: Post, connection: VhostConnection): void {
    this.#guard(post, () => {
      // A frontend that closes its side gets no requests any more.
      if (!connection.channelReadable()) this.#unwatch(connection.channel!.socket.fd, post.channelToken);
    });
  }

  #disconnect(post: Post, why?: string, level: Notice['level'] = 'info', clause?: string): void {
    const { connection, endpoint } = post;
    if (connection === undefined) return;
    post.connection = undefined;
    this.#unwatch(connection.fd, post.token);
    this.#ready.delete(post.channelToken);
    post.channel = undefined;
    try {
      connection.close();
    } catch (error) {
      const unanswered = error instanceof WorkerStuck ? ` (${connection.unanswered})` : '';
      this.#say(post, 'error', `a session did not end in order: ${messageOf(error)}${unanswered}`);
    }
    this.#listeners.wake();
    countConnection(post);
    if (level !== 'info') post.block[CONTROL_BLOCK.at.closed]++;
    if (why !== undefined) this.#say(post, level, why, clause);
    if (!endpoint.listening && this.#posts.every(({ connection: other }) => other === undefined)) this.end();
  }

  #hear(event: RingEvent): void {
    const post = this.#posts.find(({ connection }) => connection?.session === event.session);
    // What a worker says of a session that has ended meanwhile is of no interest.
    if (post?.connection === undefined) return;
    const { connection } = post;
    if (event.kind === 'broken') {
      this.#disconnect(post, `closed the connection: ${event.reason}`, 'error');
      return;
    }
    if (event.kind === 'config') post.offer.config = event.config;
    if (event.kind === 'failed')
      this.#say(post, 'warn', `queue ${event.index} has stopped: ${event.detail}`, event.clause);
    this.#guard(post, () => connection.hear(event));
  }

  #say({ endpoint }: Post, level: Notice['level'], message: string, clause?: string): void {
    this.#parts.notify({
      level,
      device: endpoint.name,
      message,
      ...(clause === undefined ? {} : { clause }),
    });
  }
}

/** Closes a worker's instance of a device. */
function removed(call: CallWorker, endpoint: number): 'flushed' | 'unflushed' | 'stuck' {
  try {
    return call({ kind: 'remove', endpoint }) === true ? 'flushed' : 'unflushed';
  } catch (error) {
    if (error instanceof WorkerStuck) return 'stuck';
    throw error;
  }
}

function saidOf(what: string, devices: readonly string[]): string[] {
  return devices.length === 0 ? [] : [`${what}: ${devices.join(', ')}`];
}

/** Counts what a post's connection has, or that there is none. */
function countConnection({ block, connection }: Post): void {
  block[CONTROL_BLOCK.at.connected] = connection === undefined ? 0 : 1;
  block[CONTROL_BLOCK.at.mappings] = connection?.platform.mappings ?? 0;
  block[CONTROL_BLOCK.at.mappedBytes] = connection?.platform.mappedBytes ?? 0;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
