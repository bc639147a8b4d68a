// A client of a xenstored on a Unix socket: this one (xenstored.ts), or a real host's.

import { connect } from 'node:net';
import { XenstoreClient } from '../xenstore/client.ts';

/** Connects to the socket at `path`; rejects with the system's error if nobody is there. */
export async function connectXenstore(path: string): Promise<XenstoreClient> {
  const socket = connect(path);
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve);
    socket.once('error', reject);
  });
  let cause: Error | undefined;
  socket.on('error', (error) => {
    cause = error;
  });
  const ended = () => new Error(`the connection to xenstored at ${path} has ended`, { cause });
  return new XenstoreClient({
    attach: (receiver) => {
      socket.on('data', (bytes) => receiver.received(bytes));
      socket.on('close', () => receiver.closed(ended()));
    },
    // Requests made in one turn of the event loop go out together.
    send: (bytes) => {
      if (socket.writableCorked === 0) {
        socket.cork();
        process.nextTick(() => socket.uncork());
      }
      socket.write(bytes);
    },
    close: () => socket.destroy(),
  });
}
