// What systemd gives a service and wants to hear from it: sockets that it has opened (sd_listen_fds(3)), and messages
// on a datagram socket (sd_notify(3), the watchdog of sd_watchdog_enabled(3)). After libc.ts; before cli/serve-run.ts.

import { Arena } from './arena.ts';
import { checked, type Libc } from './libc.ts';

const FIRST_PASSED = 3;
/** More than any service has. */
const MOST_PASSED = 4096;
const AF_UNIX = 1;
const SOCK_DGRAM_CLOEXEC = 0x80002;
const MSG_NOSIGNAL = 0x4000;
const LONGEST_NAME = 107;
const LONGEST_MESSAGE = 1024;

type Environment = Readonly<Record<string, string | undefined>>;

/** A socket that systemd has opened for us. */
export interface PassedSocket {
  readonly fd: number;
  /** FileDescriptorName= of its unit. */
  readonly name: string;
}

/** The sockets that were passed to the process `pid`; none when they are for another, such as a shell that started it. */
export function passedSockets(environment: Environment, pid: number): PassedSocket[] {
  const count = Number(environment['LISTEN_FDS'] ?? 0);
  if (environment['LISTEN_PID'] !== `${pid}` || !(count > 0 && count <= MOST_PASSED)) return [];
  const names = environment['LISTEN_FDNAMES']?.split(':') ?? [];
  return Array.from({ length: count }, (_, i) => ({ fd: FIRST_PASSED + i, name: names[i] ?? 'unknown' }));
}

/** How often systemd wants to hear WATCHDOG=1 of the process `pid`, in milliseconds; undefined when it does not. */
export function watchdogTime(environment: Environment, pid: number): number | undefined {
  const microseconds = Number(environment['WATCHDOG_USEC'] ?? 0);
  const isOurs = [undefined, `${pid}`].includes(environment['WATCHDOG_PID']);
  return isOurs && microseconds > 0 ? microseconds / 1000 : undefined;
}

/** Tells the service manager how the service is. */
export class ServiceManager {
  readonly #libc: Libc;
  readonly #fd: number;
  readonly #message;

  /** @param address NOTIFY_SOCKET: a path, or with "@" a name of Linux's own. Throws SystemError, RangeError. */
  constructor(libc: Libc, address: string) {
    const arena = new Arena(libc, 4096);
    this.#libc = libc;
    this.#message = arena.take(LONGEST_MESSAGE);
    const name = new TextEncoder().encode(address.startsWith('@') ? `\0${address.slice(1)}` : address);
    if (!/^[@/]./.test(address) || name.length > LONGEST_NAME)
      throw new RangeError(
        `NOTIFY_SOCKET ${address}: expected a path or @NAME of up to ${LONGEST_NAME} bytes`,
      );
    const target = arena.take(2 + name.length);
    target.view.setUint16(0, AF_UNIX, true);
    target.u8.set(name, 2);
    const about = `NOTIFY_SOCKET ${address}`;
    this.#fd = checked(libc, 'socket', libc.socket(AF_UNIX, SOCK_DGRAM_CLOEXEC, 0), about);
    checked(libc, 'connect', libc.connect(this.#fd, target.address, target.length), about);
  }

  /** Sends lines such as "READY=1". A manager that has gone hears nothing, and that is nobody's fault. */
  notify(...lines: readonly string[]): void {
    const bytes = new TextEncoder().encode(lines.join('\n')).subarray(0, LONGEST_MESSAGE);
    this.#message.u8.set(bytes);
    this.#libc.send(this.#fd, this.#message.address, bytes.length, MSG_NOSIGNAL);
  }
}
