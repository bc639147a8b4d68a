// The least that a vhost-user frontend can ask, over Node's own sockets: enough to see that somebody serves.

import { connect } from 'node:net';

const VHOST_USER_GET_FEATURES = 1;
const VERSION = 1;
const HEADER = 12;

/** What the backend at `path` offers. Rejects when nobody answers there, or the connection ends. */
export function offeredFeatures(path: string): Promise<bigint> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path });
    const chunks: Buffer[] = [];
    socket.on('data', (chunk) => {
      chunks.push(chunk);
      const reply = Buffer.concat(chunks);
      if (reply.length < HEADER + 8) return;
      resolve(reply.readBigUInt64LE(HEADER));
      socket.destroy();
    });
    socket.on('error', reject);
    socket.on('close', () => reject(new Error(`the backend at ${path} has hung up`)));
    const request = Buffer.alloc(HEADER);
    request.writeUInt32LE(VHOST_USER_GET_FEATURES, 0);
    request.writeUInt32LE(VERSION, 4);
    socket.write(request);
  });
}
