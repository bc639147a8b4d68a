// The way to xenstore from this domain: the socket of a store daemon that runs here (dom0), or /dev/xen/xenbus, by which
// the kernel passes messages on to where it runs. Before xenstore/client.ts.
//
// Nothing here blocks: the descriptor is for whoever waits for several (hosts/linux/epoll.ts). The tools, which have an
// event loop, use cli/xenstore-socket.ts.

import { constants } from 'node:os';
import { XENSTORE_PAYLOAD_MAX, XS_ERROR, xsdSockmsg } from '../../../abi/xenstore.ts';
import { domainId, type DomainId } from '../../../xen/ids.ts';
import type { Xenstore } from '../../../xen/xenstore.ts';
import type { ByteChannel, ByteReceiver } from '../../../xenstore/client.ts';
import { MessageWriter } from '../../../xenstore/wire.ts';
import type { Arena, Scratch } from '../arena.ts';
import { makeNonBlocking } from '../epoll.ts';
import { connectTo } from '../fd-socket.ts';
import { type Libc, SystemError } from '../libc.ts';
import { XenUnavailable } from './device-files.ts';

const { EAGAIN, EINTR } = constants.errno;
const O_RDWR_CLOEXEC = 0x80002;
const MESSAGE = xsdSockmsg.size + XENSTORE_PAYLOAD_MAX;
/** Reads of one poll at most. */
const MOST_READS = 64;

const SOCKETS = ['/run/xenstored/socket', '/var/run/xenstored/socket'];
const DEVICE = '/dev/xen/xenbus';

/** An open way to the store. */
interface StoreWay {
  readonly fd: number;
  /** Whether it is the kernel's device. */
  readonly isDevice: boolean;
}

/** The conversation with the store. */
export class StoreChannel implements ByteChannel {
  /** Can be read while `poll` has something to do. */
  readonly fd: number;
  readonly #isDevice: boolean;
  readonly #libc: Libc;
  readonly #scratch: Scratch;
  /** Messages that did not fit, oldest first, and how much of the first is out. */
  readonly #waiting: Uint8Array[] = [];
  #sent = 0;
  #receiver: ByteReceiver | undefined;

  /** @param way a connection, which is closed by `close` */
  constructor(libc: Libc, arena: Arena, { fd, isDevice }: StoreWay) {
    this.#libc = libc;
    this.#scratch = arena.take(MESSAGE);
    this.fd = fd;
    this.#isDevice = isDevice;
  }

  attach(receiver: ByteReceiver): void {
    this.#receiver = receiver;
  }

  /** A message at a time, as /dev/xen/xenbus wants them. */
  send(bytes: Uint8Array): void {
    this.#waiting.push(bytes);
    this.#flush();
  }

  /**
   * Hands on what has come, a bounded amount, and sends what waits: there is room for it when something else was
   * answered. Never blocks. Returns whether anything came.
   */
  poll(): boolean {
    let reads = 0;
    for (; reads < MOST_READS && this.#receiver !== undefined; reads++) {
      const length = this.#libc.read(this.fd, this.#scratch.address, MESSAGE);
      if (length === 0) this.#end('has ended');
      if (length < 0) this.#failed('read');
      if (length <= 0) break;
      this.#receiver.received(this.#scratch.u8.slice(0, length));
      this.#flush();
    }
    return reads > 0;
  }

  close(): void {
    if (this.#receiver === undefined) return;
    this.#receiver = undefined;
    this.#waiting.length = 0;
    this.#libc.close(this.fd);
  }

  #flush(): void {
    while (this.#receiver !== undefined && this.#waiting.length > 0) {
      const [message] = this.#waiting;
      const rest = message.subarray(this.#sent);
      this.#scratch.u8.set(rest);
      const written = this.#libc.write(this.fd, this.#scratch.address, rest.length);
      if (written < 0 && !this.#refused(message)) {
        this.#failed('write');
        return;
      }
      this.#sent += written < 0 ? rest.length : written;
      if (this.#sent < message.length) return;
      this.#sent = 0;
      this.#waiting.shift();
    }
  }

  /**
   * Whether the kernel's device has refused a message, as it does with watches that the store refuses, and with messages
   * of more than 4096 bytes with their header (Linux, xenbus_dev_frontend.c). No answer comes then: the error is it.
   */
  #refused(message: Uint8Array): boolean {
    const errno = this.#libc.errno();
    if (!this.#isDevice || isPassing(errno)) return false;
    const { req_id, tx_id } = xsdSockmsg.over(message);
    const { code } = new SystemError('write', errno, DEVICE);
    const answer = new MessageWriter();
    answer.add(XS_ERROR, req_id, tx_id, `${code}\0`);
    // Not while the request is being sent: other answers do not come that early either.
    queueMicrotask(() => this.#receiver?.received(answer.take()));
    return true;
  }

  /** After a call that did nothing: either it may do something later, or the conversation is over. */
  #failed(call: string): void {
    const errno = this.#libc.errno();
    if (isPassing(errno)) return;
    this.#end(`is broken: ${new SystemError(call, errno, 'xenstore').message}`);
  }

  #end(how: string): void {
    // Its answer is `close`.
    this.#receiver?.closed(new Error(`the connection to xenstore ${how}`));
  }
}

/** Whether a call that failed so is only too early. */
function isPassing(errno: number): boolean {
  return errno === EAGAIN || errno === EINTR;
}

/**
 * Opens the way to the store.
 *
 * @param sockets where a daemon's may be
 * @throws XenUnavailable
 */
export function openStoreChannel(
  libc: Libc,
  arena: Arena,
  sockets: readonly string[] = SOCKETS,
): StoreChannel {
  return new StoreChannel(libc, arena, openStore(libc, arena, sockets));
}

function openStore(libc: Libc, arena: Arena, sockets: readonly string[]): StoreWay {
  const reasons: string[] = [];
  for (const path of sockets) {
    try {
      const fd = connectTo(libc, arena, path);
      makeNonBlocking(libc, fd);
      return { fd, isDevice: false };
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      reasons.push(`${path} (${error.code})`);
    }
  }
  const fd = libc.open(DEVICE, O_RDWR_CLOEXEC, 0);
  if (fd < 0) {
    reasons.push(`${DEVICE} (${new SystemError('open', libc.errno(), DEVICE).code})`);
    throw new XenUnavailable(
      `xenstore cannot be reached by ${reasons.join(', ')}: this has to be a domain of Xen, in dom0 with its store ` +
        'daemon running, and the program has to be root',
    );
  }
  makeNonBlocking(libc, fd);
  return { fd, isDevice: true };
}

/** The id of the domain that this program runs in, as the toolstack has written it. Rejects with XenUnavailable. */
export async function ownDomainId(store: Xenstore): Promise<DomainId> {
  const text = await store.read('domid').catch((error: unknown) => {
    throw new XenUnavailable(
      `the store does not say which domain this is (${error instanceof Error ? error.message : error}): in dom0, ` +
        'run xen-init-dom0',
    );
  });
  return domainId(Number.parseInt(text, 10));
}
