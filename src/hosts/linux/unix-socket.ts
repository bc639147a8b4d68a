// A listening Unix socket at a path of the file system: takes the place of a dead server's socket, of
// nothing else, and is removed in the end only if it is still the one we made. Before it: nbd/server.ts,
// cli/xenstored.ts, serving/vhost-server.ts.

import type { BigIntStats } from 'node:fs';
import { chmod, lstat, rename, unlink } from 'node:fs/promises';
import { connect, type Server } from 'node:net';
import { dirname } from 'node:path';

/** Longest path of a Unix socket, in bytes: Linux's sockaddr_un without its NUL. */
const MAX_SOCKET_PATH = 107;

/** Removes the socket, if it is still ours. */
export type RemoveSocket = () => Promise<void>;

/** What a socket may be given. */
interface SocketOptions {
  /** Permission bits; those that the process gives to all its files when left out. */
  readonly mode?: number;
  /** What the socket is called before it is in its place. */
  readonly temporaryName?: string;
}

/** Throws RangeError unless a Unix socket can have this path. */
export function checkSocketPath(path: string): void {
  const bytes = Buffer.byteLength(path);
  if (bytes === 0) throw new RangeError('socket path: empty, expected a path such as ./socket');
  if (path.includes('\0')) throw new RangeError(`socket path ${JSON.stringify(path)}: has a NUL character`);
  if (bytes > MAX_SOCKET_PATH)
    throw new RangeError(
      `socket path ${path}: ${bytes} bytes, expected at most ${MAX_SOCKET_PATH}; choose a shorter directory`,
    );
}

/** Makes `server` listen at `path`. Rejects as `placeSocket` does. */
export async function listenAtPath(
  server: Server,
  path: string,
  options: SocketOptions = {},
): Promise<RemoveSocket> {
  return await placeSocket(path, (bound) => listening(server, bound, path), options);
}

/**
 * Puts a socket that `bind` makes listen at another name to `path`. Rejects with RangeError when no socket can have
 * that path, otherwise with what is in the way and what to do about it.
 *
 * The socket is bound under a name of its own and then moved into place: libuv removes by name what it
 * bound, and would otherwise take away the socket of whoever has replaced ours.
 */
export async function placeSocket(
  path: string,
  bind: (name: string) => Promise<void>,
  { mode, temporaryName = `.${Math.random().toString(16).slice(2, 8)}` }: SocketOptions = {},
): Promise<RemoveSocket> {
  // Not join(), which takes "./" away: Node reads a path that is a number, such as ".30e519", as a port.
  const bound = `${dirname(path)}/${temporaryName}`;
  checkSocketPath(path);
  checkSocketPath(bound);
  await makeWay(path);
  await bind(bound);
  // Before anybody can find it.
  if (mode !== undefined) await chmod(bound, mode);
  const own = await lstat(bound, { bigint: true });
  await rename(bound, path);
  return async () => {
    const found = await statOf(path);
    if (found?.ino === own.ino && found.dev === own.dev) await unlink(path);
  };
}

/** Removes a socket that nobody answers; rejects when anything else is at `path`. */
async function makeWay(path: string): Promise<void> {
  const found = await statOf(path);
  if (!found) return;
  if (!found.isSocket()) throw failure(path, 'is there and not a socket; remove it or choose another path');
  const refused = await whyRefused(path);
  if (refused === undefined) throw failure(path, 'has a running server; stop that or choose another path');
  if (codeOf(refused) !== 'ECONNREFUSED')
    throw failure(path, 'cannot be asked for its server; remove it or choose another path', refused);
  await unlink(path).catch((cause) => {
    throw failure(path, "is a dead server's and cannot be removed; choose another path", cause);
  });
}

/** The error with which a connection to the socket fails; undefined when a server answers. */
function whyRefused(path: string): Promise<Error | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.once('error', resolve);
    socket.once('connect', () => {
      socket.destroy();
      resolve(undefined);
    });
  });
}

function listening(server: Server, bound: string, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const refuse = (cause: Error): void =>
      reject(failure(path, 'cannot be made; is its directory there and writable?', cause));
    server.once('error', refuse);
    server.listen({ path: bound }, () => {
      server.off('error', refuse);
      resolve();
    });
  });
}

async function statOf(path: string): Promise<BigIntStats | undefined> {
  try {
    return await lstat(path, { bigint: true });
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw failure(path, 'cannot be looked at', error);
  }
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined;
}

/** The system's own message goes along, since it has the errno. */
function failure(path: string, problem: string, cause?: unknown): Error {
  return new Error(`socket ${path} ${problem}${cause instanceof Error ? ` (${cause.message})` : ''}`, {
    cause,
  });
}
