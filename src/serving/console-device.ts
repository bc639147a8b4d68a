// A console for a virtual machine, and what its ports are connected to on this host. After devices.ts, before
// devices/console.ts and hosts/linux/console-stream.ts.

import { ConsoleDevice, type ConsolePortOptions } from '../devices/console.ts';
import type { ConsoleEndpoint } from '../devices/console-endpoint.ts';
import { ConsoleLog } from '../hosts/linux/console-log.ts';
import { ConsolePty } from '../hosts/linux/console-pty.ts';
import { ConsoleSocket } from '../hosts/linux/console-socket.ts';
import type { ConsoleThread } from '../hosts/linux/console-stream.ts';
import { ConsoleTerminal } from '../hosts/linux/console-terminal.ts';

/** What a port is connected to. */
export type ConsoleConnection =
  /** A Unix socket to listen on, for one client at a time. */
  | { readonly kind: 'socket'; readonly path: string }
  /** A pseudo terminal, with a link to it at `path`. */
  | { readonly kind: 'pty'; readonly path: string }
  /** Standard input and output of the process. */
  | { readonly kind: 'stdio' }
  /** A log file of at most `limit` bytes, and the one before it. */
  | { readonly kind: 'log'; readonly path: string; readonly limit: number };

/** A console. */
export interface ConsoleSpec {
  readonly kind: 'console';
  /** 1 to 31. */
  readonly ports: readonly {
    /** Under which the guest finds it, up to 64 bytes of UTF-8; none if empty. */
    readonly name: string;
    /** Whether it is for a person at a terminal; others are for programs. */
    readonly isConsole: boolean;
    readonly connection: ConsoleConnection;
  }[];
}

/** Something a port is connected to, and what it has open. */
interface Connected {
  readonly endpoint: ConsoleEndpoint;
  close(): void;
}

/** Makes a console, and all that its ports are connected to. Throws what these throw; nothing stays open then. */
export function makeConsole(
  { ports }: ConsoleSpec,
  thread: ConsoleThread,
): { readonly device: ConsoleDevice; flush(): boolean; close(): void } {
  const connected: Connected[] = [];
  const close = (): void => {
    for (const each of connected.splice(0)) each.close();
  };
  try {
    const options = ports.map(({ name, isConsole, connection }): ConsolePortOptions => {
      const each = connect(connection, thread, isConsole);
      connected.push(each);
      return { name, isConsole, endpoint: each.endpoint };
    });
    // What a console has said is nowhere to be made durable.
    return { device: new ConsoleDevice(options), flush: () => true, close };
  } catch (error) {
    close();
    throw error;
  }
}

function connect(connection: ConsoleConnection, thread: ConsoleThread, isConsole: boolean): Connected {
  switch (connection.kind) {
    case 'socket':
      return new ConsoleSocket(thread, connection.path, isConsole);
    case 'pty':
      return new ConsolePty(thread, connection.path, isConsole);
    case 'stdio':
      return new ConsoleTerminal(thread, isConsole);
    case 'log': {
      const log = new ConsoleLog(connection, thread.watches);
      return { endpoint: log, close: () => log.close() };
    }
  }
}
