// Event channels of this process, over /dev/xen/evtchn (Linux, drivers/xen/evtchn.c). Implements the port of
// xen/event-channels.ts; its counterpart in the embedded Xen is hosts/model/events/domain-events.ts.
//
// A port that has had an event is masked until it is written back. That is done before the handlers are called, so that
// an event that comes while one runs is told of again.

import { constants } from 'node:os';
import {
  IOCTL_EVTCHN_BIND_INTERDOMAIN,
  IOCTL_EVTCHN_BIND_UNBOUND_PORT,
  IOCTL_EVTCHN_NOTIFY,
  IOCTL_EVTCHN_UNBIND,
  ioctlEvtchnBindInterdomain,
  ioctlEvtchnWord,
} from '../../../abi/evtchn.ts';
import type { EventChannels } from '../../../xen/event-channels.ts';
import type { DomainId, EventPort } from '../../../xen/ids.ts';
import type { Arena, Scratch } from '../arena.ts';
import { checked, type Libc } from '../libc.ts';
import { openXenDevice } from './device-files.ts';

const { EAGAIN, EINTR } = constants.errno;
/** Events taken in one poll; the others are told of in the next. */
const BATCH = 64;
const PORT_SIZE = 4;

/** The channels; all of them end with `closeAll`. */
export class EvtchnEvents implements EventChannels {
  /** Can be read while `poll` has something to do. */
  readonly fd: number;
  readonly #libc: Libc;
  readonly #argument: Scratch;
  readonly #word: ReturnType<typeof ioctlEvtchnWord.over>;
  readonly #batch: Scratch;
  readonly #ports = new Uint32Array(BATCH);
  readonly #handlers = new Map<number, () => void>();

  /** Throws XenUnavailable. */
  constructor(libc: Libc, arena: Arena) {
    this.#libc = libc;
    this.#argument = arena.take(ioctlEvtchnBindInterdomain.size);
    this.#word = ioctlEvtchnWord.over(this.#argument.u8);
    this.#batch = arena.take(BATCH * PORT_SIZE);
    this.fd = openXenDevice(libc, '/dev/xen/evtchn');
  }

  allocateUnbound(remote: DomainId): EventPort {
    return this.#control(IOCTL_EVTCHN_BIND_UNBOUND_PORT, remote) as EventPort;
  }

  bindInterdomain(remote: DomainId, remotePort: EventPort): EventPort {
    const argument = ioctlEvtchnBindInterdomain.over(this.#argument.u8);
    argument.remote_port = remotePort;
    return this.#control(IOCTL_EVTCHN_BIND_INTERDOMAIN, remote) as EventPort;
  }

  close(port: EventPort): number {
    this.#handlers.delete(port);
    return this.#control(IOCTL_EVTCHN_UNBIND, port);
  }

  send(port: EventPort): number {
    return this.#control(IOCTL_EVTCHN_NOTIFY, port);
  }

  onEvent(port: EventPort, handler: (() => void) | undefined): void {
    if (handler) this.#handlers.set(port, handler);
    else this.#handlers.delete(port);
  }

  /**
   * Handles the events that are pending now, a bounded number. Never blocks. Returns whether there were any.
   *
   * @throws SystemError when the device fails
   */
  poll(): boolean {
    const { view, address } = this.#batch;
    const length = this.#libc.read(this.fd, address, BATCH * PORT_SIZE);
    if (length < 0) {
      const errno = this.#libc.errno();
      if (errno === EAGAIN || errno === EINTR) return false;
      checked(this.#libc, 'read', length, '/dev/xen/evtchn');
    }
    const count = Math.floor(length / PORT_SIZE);
    if (count === 0) return false;
    // All of them first: the memory is the next poll's as well.
    for (let i = 0; i < count; i++) this.#ports[i] = view.getUint32(i * PORT_SIZE, true);
    checked(this.#libc, 'write', this.#libc.write(this.fd, address, count * PORT_SIZE), '/dev/xen/evtchn');
    for (let i = 0; i < count; i++) this.#handlers.get(this.#ports[i])?.();
    return true;
  }

  /** Ends every channel, and this. */
  closeAll(): void {
    this.#handlers.clear();
    this.#libc.close(this.fd);
  }

  /** Returns what the ioctl does, or the negative errno with which it is refused. */
  #control(request: number, first: number): number {
    this.#word.value = first;
    const result = this.#libc.ioctl(this.fd, request, this.#argument.address);
    return result < 0 ? -this.#libc.errno() : result;
  }
}
