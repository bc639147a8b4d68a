// Case C9: SIGINT and SIGTERM in the middle of work. The queues are stopped, every grant is revoked, the
// report is printed, and the image holds all that was acknowledged.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { NBD_CMD_WRITE } from '../../src/abi/nbd.ts';
import { RawClient, requestBytes } from '../support/nbd.ts';
import { grantio, startGrantio, temporaryFolder, tracing } from '../support/grantio.ts';
import { parseReport } from '../support/report.ts';

const SIGNALS = ['SIGINT', 'SIGTERM'] as const;
const MIB = 2 ** 20;

for (const signal of SIGNALS)
  test(`C9: ${signal} in the middle of a copy`, async (t) => {
    const folder = temporaryFolder(t);
    const image = join(folder, 'disk.img');
    writeFileSync(image, '');
    // Far more than is copied before the signal comes; a hole, so that it costs nothing.
    truncateSync(image, 2048 * MIB);
    const words = ['run', '--disk', 'disk.img', '--trace', 'trace.json', '--json'];
    const running = startGrantio(t, words, { cwd: folder });
    await tracing(running, join(folder, 'trace.json'));
    running.signal(signal);
    const { status, stdout, stderr } = await running.ended;
    assert.equal(status, 1, stderr);
    assert.match(stderr, new RegExp(`^grantio: .*${signal}.*$`, 'm'));
    const modes = parseReport(stdout);
    assert.deepEqual(
      modes.map(({ mode, leakedGrants }) => ({ mode, leakedGrants })),
      [{ mode: 'direct', leakedGrants: 0 }],
    );
    assert.ok(modes[0].pagesGranted > 0, 'nothing was copied before the signal');
    assert.ok(Array.isArray(JSON.parse(readFileSync(join(folder, 'trace.json'), 'utf8'))), 'trace');
  });

for (const signal of SIGNALS)
  test(`C9: ${signal} in the middle of serving`, async (t) => {
    const folder = temporaryFolder(t);
    const image = join(folder, 'disk.img');
    writeFileSync(image, Buffer.alloc(16 * MIB));
    const words = ['run', '--disk', 'disk.img', '--nbd', 'sock', '--queues', '2', '--json'];
    const running = startGrantio(t, words, { cwd: folder });
    await running.says(/nbd\+unix:\S+\n/);
    const socket = connect({ path: join(folder, 'sock') });
    t.after(() => socket.destroy());
    await once(socket, 'connect');
    const client = new RawClient(socket);
    await client.go();
    // Each block holds its own number, so that an acknowledged one can be told from one that was not written.
    const block = (index: number): Buffer => Buffer.alloc(64 * 1024, 1 + (index % 251));
    for (let index = 0; index < 256; index++)
      client.send(
        requestBytes(NBD_CMD_WRITE, { offset: index * 64 * 1024, data: block(index), cookie: BigInt(index) }),
      );
    const acknowledged: number[] = [];
    const replies = async (): Promise<never> => {
      for (;;) {
        const { cookie, error } = await client.reply();
        if (error === 0) acknowledged.push(Number(cookie));
        if (acknowledged.length === 8) running.signal(signal);
      }
    };
    await assert.rejects(replies, /hung up/);
    const { status, stdout, stderr } = await running.ended;
    assert.equal(status, 0, stderr);
    assert.equal(parseReport(stdout)[0].leakedGrants, 0);
    assert.ok(!existsSync(join(folder, 'sock')), 'the socket is left behind');
    const disk = readFileSync(image);
    assert.ok(acknowledged.length >= 8, `${acknowledged.length} writes were acknowledged`);
    for (const index of acknowledged) {
      const written = disk.subarray(index * 64 * 1024, (index + 1) * 64 * 1024);
      assert.ok(written.equals(block(index)), `block ${index} was acknowledged and is not in the image`);
    }
  });

for (const signal of SIGNALS)
  test(`C9: ${signal} ends the command of --run, whose status is passed on`, async (t) => {
    const folder = temporaryFolder(t);
    writeFileSync(join(folder, 'disk.img'), Buffer.alloc(MIB));
    const command = `kill -${signal.slice(3)} $PPID; exec tail -f /dev/null`;
    const words = ['run', '--disk', 'disk.img', '--json', '--run', command];
    const ended = await grantio(t, words, { cwd: folder });
    // SIGTERM is what the command is ended with in either case.
    assert.equal(ended.status, 128 + 15, ended.stderr);
    assert.equal(parseReport(ended.stdout)[0].leakedGrants, 0);
  });
