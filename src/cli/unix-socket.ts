// A Unix socket to listen on, with the care that its file needs: a live socket is not taken away, a stale one
// is cleared, and at the end only our own file is removed (reference/cases O2).

import { chmodSync, linkSync, lstatSync, renameSync, type Stats, unlinkSync } from 'node:fs';
import { connect, type Server } from 'node:net';

/** Longest path that fits into struct sockaddr_un with its final NUL. */
const PATH_MAX = 107;

/** Why a socket cannot be listened on, in words for whoever gave its path. */
export class SocketRefusal extends Error {
  /** What a command exits with: 2 if the path can never do, 1 if it is in the way of something now. */
  readonly exitCode: 1 | 2;

  constructor(message: string, exitCode: 1 | 2, cause?: unknown) {
    super(message, { cause });
    this.name = 'SocketRefusal';
    this.exitCode = exitCode;
  }
}

/**
 * Makes `server` listen at `path`, for its own user only. Throws SocketRefusal. The returned function stops
 * listening and removes the socket file, if it is still ours; connections are the caller's to end.
 */
export async function listenAt(server: Server, path: string): Promise<() => Promise<void>> {
  const length = Buffer.byteLength(path);
  if (length === 0 || length > PATH_MAX)
    throw new SocketRefusal(
      `socket path "${path}" has ${length} bytes: a Unix socket's has 1 to ${PATH_MAX}; choose a shorter directory`,
      2,
    );
  let failure = await listen(server, path);
  if (failure?.code === 'EADDRINUSE') {
    await clearStale(path);
    failure = await listen(server, path);
  }
  if (failure !== undefined)
    throw new SocketRefusal(`cannot listen on ${path}: ${failure.message}`, 1, failure);
  chmodSync(path, 0o600);
  const own = lstatSync(path);
  return () => close(server, path, own);
}

function listen(server: Server, path: string): Promise<NodeJS.ErrnoException | undefined> {
  return new Promise((resolve) => {
    const failed = (error: NodeJS.ErrnoException) => resolve(error);
    server.once('error', failed);
    server.listen(path, () => {
      server.off('error', failed);
      resolve(undefined);
    });
  });
}

/** Removes the socket file that a process which is no more has left behind; nothing else. */
async function clearStale(path: string): Promise<void> {
  if (statOf(path)?.isSocket() === false)
    throw new SocketRefusal(`${path} is there and is no socket: remove it, or choose another path`, 1);
  const failure = await probe(path);
  if (failure === undefined)
    throw new SocketRefusal(`somebody is listening on ${path}: stop that process, or choose another path`, 1);
  if (failure.code === 'ENOENT') return;
  if (failure.code !== 'ECONNREFUSED')
    throw new SocketRefusal(`cannot tell whether ${path} is in use: ${failure.message}`, 1, failure);
  unlinkSync(path);
}

/** Resolves with nothing if somebody accepts connections there. */
function probe(path: string): Promise<NodeJS.ErrnoException | undefined> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('error', resolve);
    socket.once('connect', () => {
      socket.destroy();
      resolve(undefined);
    });
  });
}

function statOf(path: string): Stats | undefined {
  return lstatSync(path, { throwIfNoEntry: false });
}

/**
 * Node removes whatever lies at the path when the server closes. If that is not our socket any more, it is
 * put back.
 */
async function close(server: Server, path: string, own: Stats): Promise<void> {
  const now = statOf(path);
  const foreign = now !== undefined && (now.ino !== own.ino || now.dev !== own.dev);
  const kept = `${path}.kept-${process.pid}`;
  if (foreign) linkSync(path, kept);
  await new Promise<void>((resolve) => server.close(() => resolve()));
  if (foreign) renameSync(kept, path);
}
