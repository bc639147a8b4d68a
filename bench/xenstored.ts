// The xenstore daemon as its users meet it: a process of its own, a client in another, a Unix socket between
// them. The client does next to nothing, so that the figures are the daemon's.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as xs from '../src/abi/xenstore.ts';
import { MessageWriter } from '../src/xenstore/wire.ts';
import { type Figure, measure } from './figures.ts';

const GRANTIO = fileURLToPath(new URL('../../bin/grantio', import.meta.url));
/** Messages that are sent at a time, and how many times a round sends them. */
const BATCH = 64;
const BATCHES = 1000;
const ROUNDS = 9;
const VALUE = 'x'.repeat(32);

/** A daemon that listens at a path of its own. */
async function daemonAt(path: string): Promise<ChildProcess> {
  const daemon = spawn(process.execPath, [GRANTIO, 'xenstored', '--socket', path], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  await once(daemon.stdout, 'data');
  return daemon;
}

async function stop(daemon: ChildProcess): Promise<void> {
  const exit = once(daemon, 'exit');
  daemon.kill();
  await exit;
}

/** Messages as one piece of memory. */
function messages(count: number, each: (index: number) => readonly [number, string], transaction = 0) {
  const writer = new MessageWriter();
  for (let i = 0; i < count; i++) {
    const [type, payload] = each(i);
    writer.add(type, i, transaction, payload);
  }
  return writer.take();
}

/** Sends bytes and counts bytes. */
class RawClient {
  readonly #socket: Socket;
  #missing = 0;
  #done: () => void = () => undefined;

  constructor(path: string) {
    this.#socket = connect(path);
    this.#socket.on('data', (bytes) => {
      this.#missing -= bytes.length;
      if (this.#missing === 0) this.#done();
      if (this.#missing < 0)
        throw new Error(`the daemon answered ${-this.#missing} bytes more than expected`);
    });
  }

  /** Resolves when as many bytes have come as the replies have. */
  ask(requests: Uint8Array, replyBytes: number): Promise<void> {
    this.#missing += replyBytes;
    this.#socket.write(requests);
    return new Promise((resolve) => {
      this.#done = resolve;
    });
  }

  close(): void {
    this.#socket.destroy();
  }
}

const HEADER = xs.xsdSockmsg.size;
const OK = HEADER + 'OK\0'.length;
const VALUE_REPLY = HEADER + VALUE.length;

const key = (i: number) => `/bench/${i % BATCH}`;
const read = (i: number) => [xs.XS_READ, `${key(i)}\0`] as const;
const write = (i: number) => [xs.XS_WRITE, `${key(i)}\0${VALUE}`] as const;

/** Operations a second, of `count` in each of so many batches. */
async function perSecond(count: number, batch: () => Promise<unknown>): Promise<number> {
  const start = process.hrtime.bigint();
  for (let i = 0; i < BATCHES; i++) await batch();
  return (count * BATCHES) / (Number(process.hrtime.bigint() - start) / 1e9);
}

/** Reads and writes in turn, in a transaction that is started and committed: a round trip more for its id. */
async function transaction(client: RawClient, id: number): Promise<void> {
  // The daemon numbers a client's transactions from 1; as the reply says, or the next would be refused.
  await client.ask(
    messages(1, () => [xs.XS_TRANSACTION_START, '\0']),
    HEADER + `${id}\0`.length,
  );
  const mixed = messages(BATCH - 2, (i) => (i % 2 === 0 ? read(i) : write(i)), id);
  const end = messages(1, () => [xs.XS_TRANSACTION_END, 'T\0'], id);
  await client.ask(Buffer.concat([mixed, end]), ((BATCH - 2) / 2) * (VALUE_REPLY + OK) + OK);
}

async function benchOperations(folder: string): Promise<Figure[]> {
  const path = join(folder, 'operations');
  const daemon = await daemonAt(path);
  const client = new RawClient(path);
  const reads = messages(BATCH, read);
  const writes = messages(BATCH, write);
  const aim = 'aim: over 50000';
  let transactions = 0;
  try {
    await client.ask(writes, BATCH * OK);
    return await measure(
      `xenstored, ${BATCH} messages at a time over its Unix socket`,
      'ops/s',
      [
        { name: 'read', aim, round: () => perSecond(BATCH, () => client.ask(reads, BATCH * VALUE_REPLY)) },
        { name: 'write', aim, round: () => perSecond(BATCH, () => client.ask(writes, BATCH * OK)) },
        {
          name: 'both, in transactions',
          aim,
          round: () => perSecond(BATCH, () => transaction(client, ++transactions)),
        },
      ],
      ROUNDS,
    );
  } finally {
    client.close();
    await stop(daemon);
  }
}

/** Milliseconds from starting the daemon to its first answer. */
async function startDaemon(path: string): Promise<number> {
  const start = process.hrtime.bigint();
  const daemon = await daemonAt(path);
  const client = new RawClient(path);
  await client.ask(
    messages(1, () => [xs.XS_GET_DOMAIN_PATH, '0\0']),
    HEADER + '/local/domain/0\0'.length,
  );
  const milliseconds = Number(process.hrtime.bigint() - start) / 1e6;
  client.close();
  await stop(daemon);
  return milliseconds;
}

/** Milliseconds that Node itself takes to start and end. */
async function startNode(): Promise<number> {
  const start = process.hrtime.bigint();
  await once(spawn(process.execPath, ['-e', '0']), 'exit');
  return Number(process.hrtime.bigint() - start) / 1e6;
}

function benchStart(folder: string): Promise<Figure[]> {
  const path = join(folder, 'start');
  return measure(
    'start to first answer',
    'ms',
    [
      { name: 'grantio xenstored', aim: 'aim: under 150', round: () => startDaemon(path) },
      { name: 'node -e 0, to its end', round: startNode },
    ],
    ROUNDS,
  );
}

export async function benchXenstored(): Promise<Figure[]> {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-bench-'));
  try {
    return [...(await benchOperations(folder)), ...(await benchStart(folder))];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
