// One frontend's connection: reads its messages, hands them to the session, and ends both together. What the
// frontend does wrong ends its own connection and nothing else.
// After control-thread.ts, before transports/vhost-user/session.ts.

import { ProtocolViolation } from '../errors.ts';
import { Arena } from '../hosts/linux/arena.ts';
import { FdSocket } from '../hosts/linux/fd-socket.ts';
import type { Libc } from '../hosts/linux/libc.ts';
import { MAX_PAYLOAD, MessageReader, type VhostMessage } from '../transports/vhost-user/message-reader.ts';
import { VhostUserSession } from '../transports/vhost-user/session.ts';
import type { RingRunner } from '../transports/vhost-user/platform.ts';
import type { DeviceOffer } from '../virtio/device.ts';
import { LinuxPlatform } from './linux-platform.ts';
import { usable } from './peer-descriptors.ts';
import type { RingEvent } from './ring-commands.ts';
import { type CallWorker, SpreadRings } from './spread-rings.ts';
import type { TracedRings } from './traced-rings.ts';

/** Messages dealt with before others get their turn (case F25). */
const TURN = 64;
/** Scratch memory of a connection, bytes. */
const ARENA = 32 * 1024;

/** The same for a second socket, and how much is read from it at once: answers are short. */
const CHANNEL_ARENA = 4096;
const LONGEST_READ = 1024;

/** What a connection is made of. */
export interface ConnectionParts {
  readonly libc: Libc;
  /** The socket, which is the connection's from now on. */
  readonly fd: number;
  /** Names it among all, for the workers. */
  readonly session: number;
  /** Names the device, for the workers. */
  readonly endpoint: number;
  /** What it offers. */
  readonly device: DeviceOffer;
  readonly restricted: boolean;
  readonly sealed: boolean;
  /** Adds one to an eventfd of the frontend's, without waiting for it. */
  readonly signal: (fd: number) => void;
  /** Those that have an instance of the device. */
  readonly workers: readonly CallWorker[];
  /** A request was answered with a failure; the connection goes on. */
  readonly onRefused: (request: string, why: ProtocolViolation) => void;
  /** Puts a trace in front of its rings, if there is one. */
  readonly traceRings: ((rings: RingRunner) => TracedRings) | undefined;
}

/** A stream of messages, on a socket. */
interface Stream {
  readonly socket: FdSocket;
  readonly reader: MessageReader;
}

/** The stream on a second socket, with memory of its own, because a frontend may bring many. */
interface Channel extends Stream {
  readonly arena: Arena;
}

/** One connection. */
export class VhostConnection {
  readonly session: number;
  readonly platform: LinuxPlatform;
  readonly #libc: Libc;
  readonly #arena: Arena;
  readonly #sealed: boolean;
  readonly #main: Stream;
  readonly #vhost: VhostUserSession;
  #rings!: SpreadRings;
  #traced: TracedRings | undefined;
  #channel: Channel | undefined;

  constructor(parts: ConnectionParts) {
    const {
      libc,
      fd,
      session,
      device,
      endpoint,
      workers,
      restricted,
      sealed,
      signal,
      onRefused,
      traceRings,
    } = parts;
    this.session = session;
    this.#libc = libc;
    this.#arena = new Arena(libc, ARENA);
    this.platform = new LinuxPlatform({ libc, arena: this.#arena, sealed, signal });
    this.#sealed = sealed;
    this.#main = {
      socket: new FdSocket(libc, this.#arena, fd, MAX_PAYLOAD + 64),
      reader: new MessageReader(),
    };
    this.#vhost = new VhostUserSession({
      device,
      platform: this.platform,
      restricted,
      xen: false,
      runner: (events) => {
        this.#rings = new SpreadRings(session, endpoint, workers, events);
        this.#traced = traceRings?.(this.#rings);
        return this.#traced ?? this.#rings;
      },
      send: (bytes, fds) => {
        if (!this.#main.socket.send(bytes, fds))
          throw new ProtocolViolation('vhost-user', 'the frontend takes no answers');
      },
      onRefused,
    });
  }

  /** The socket of the frontend's requests. */
  get fd(): number {
    return this.#main.socket.fd;
  }

  /** The answers to ours, on the frontend's second socket; another object for each that it brings. */
  get channel(): Channel | undefined {
    return this.#channel;
  }

  /**
   * Deals with what has come on the first socket.
   *
   * @returns false when the frontend has ended the connection
   * @throws ProtocolViolation when it breaks a rule; `close` is then due, as it is after false
   */
  readable(): boolean {
    return this.#read(this.#main, (message) => {
      this.#vhost.handle(this.#usable(message));
      if (this.#vhost.channelFd !== (this.#channel?.socket.fd ?? -1)) this.#followChannel();
    });
  }

  /** The same for the second. */
  channelReadable(): boolean {
    return this.#read(this.#channel!, (message) => this.#vhost.handleAnswer(message));
  }

  /** A worker has something to say of this session. */
  hear(event: RingEvent): void {
    this.#rings.hear(event);
  }

  /** What is under way in queues that could not be stopped, in words. */
  get unanswered(): string {
    return this.#rings.unanswered;
  }

  /** Ends the session and closes all that belongs to it. Throws WorkerStuck, with its memory mapped still. */
  close(): void {
    try {
      this.#vhost.close();
      this.#rings.close();
    } finally {
      this.#traced?.close();
      this.#endChannel();
      const { socket, reader } = this.#main;
      socket.closeAll(reader.pendingFds);
      this.#libc.close(this.fd);
      this.#arena.close();
    }
  }

  #usable(message: VhostMessage): VhostMessage {
    try {
      return usable(this.#libc, message, this.#sealed);
    } catch (error) {
      this.#main.socket.closeAll(message.fds);
      throw error;
    }
  }

  /** The session has another second socket, or none. */
  #followChannel(): void {
    this.#endChannel();
    const fd = this.#vhost.channelFd;
    if (fd < 0) return;
    const arena = new Arena(this.#libc, CHANNEL_ARENA);
    const socket = new FdSocket(this.#libc, arena, fd, LONGEST_READ);
    this.#channel = { socket, reader: new MessageReader(), arena };
  }

  /** Lets go of what was there for the second socket; the session has closed that. */
  #endChannel(): void {
    const channel = this.#channel;
    if (channel === undefined) return;
    this.#channel = undefined;
    channel.socket.closeAll(channel.reader.pendingFds);
    channel.arena.close();
  }

  #read({ socket, reader }: Stream, deal: (message: VhostMessage) => void): boolean {
    for (let messages = 0; messages < TURN; ) {
      const { length, fds } = socket.receive(reader.room, false);
      if (length === 0) {
        socket.closeAll(fds);
        return false;
      }
      if (length < 0) return true;
      const message = reader.advance(length, fds);
      if (message === undefined) continue;
      messages++;
      deal(message);
    }
    return true;
  }
}
