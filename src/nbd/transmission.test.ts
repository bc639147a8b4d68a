import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MemoryDisk, type MemoryDiskOptions } from '../../test/support/memory-disk.ts';
import { connected, requestBytes } from '../../test/support/nbd.ts';
import { settled } from '../../test/support/settled.ts';
import {
  NBD_CMD_DISC,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_EINVAL,
  NBD_EIO,
  NBD_ENOSPC,
  NBD_ENOTSUP,
  NBD_EPERM,
  NBD_REPLY_TYPE_ERROR,
  NBD_REPLY_TYPE_NONE,
  NBD_REPLY_TYPE_OFFSET_DATA,
} from '../abi/nbd.ts';
import { DiskError } from '../drivers/disk.ts';
import { LINGER_MILLISECONDS, STALL_MILLISECONDS } from './connection.ts';
import { MAX_LENT, MAX_PAYLOAD, MAX_REQUESTS } from './transmission.ts';

/** A client in the transmission phase on a disk whose bytes count up. */
async function serving(
  structured: boolean,
  options: MemoryDiskOptions = {},
  capacity = 1 << 20,
): Promise<ReturnType<typeof connected> & { disk: MemoryDisk }> {
  const disk = new MemoryDisk(capacity, options);
  for (let i = 0; i < capacity; i++) disk.bytes[i] = i % 251;
  const connection = connected([{ name: 'disk', disk }]);
  await connection.client.go('', structured);
  return { ...connection, disk };
}

/** A promise and what settles it. */
function gate(): { readonly passed: Promise<void>; readonly open: () => void } {
  let open = (): void => undefined;
  const passed = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { passed, open };
}

for (const structured of [false, true]) {
  const how = structured ? 'structured' : 'simple';

  test(`${how}: reads of any place and length bring the disk's bytes`, async () => {
    const { client, disk } = await serving(structured, { maxTransfer: 4096 });
    for (const [offset, length] of [
      [0, 512],
      [1, 1],
      [4096, 4096],
      [511, 2],
      [100, 20_000],
      [(1 << 20) - 7, 7],
      [1 << 20, 0],
      [77, 0],
    ]) {
      const { error, data } = await client.call(NBD_CMD_READ, { offset, length });
      assert.equal(error, 0);
      assert.deepEqual(Buffer.from(data), Buffer.from(disk.bytes.slice(offset, offset + length)));
    }
    await settled();
    assert.equal(disk.lent, 0);
  });

  test(`${how}: writes of any place and length change these bytes and no other`, async () => {
    const { client, disk } = await serving(structured, { maxTransfer: 4096 });
    const expected = Buffer.from(disk.bytes);
    for (const [offset, length] of [
      [0, 512],
      [1023, 1],
      [5000, 9000],
      [300, 0],
      [(1 << 20) - 5000, 5000],
    ]) {
      const data = Buffer.alloc(length, 0xaa);
      data.copy(expected, offset);
      assert.equal((await client.call(NBD_CMD_WRITE, { offset, data })).error, 0);
    }
    assert.deepEqual(Buffer.from(disk.bytes), expected);
    assert.equal(disk.lent, 0);
  });

  test(`${how}: flush, trim and zeroes reach the disk; FUA flushes before the reply`, async () => {
    const { client, disk } = await serving(structured);
    const calls: [number, object][] = [
      [NBD_CMD_FLUSH, {}],
      [NBD_CMD_TRIM, { offset: 512, length: 1024 }],
      [NBD_CMD_WRITE_ZEROES, { offset: 512, length: 1024 }],
      [NBD_CMD_WRITE_ZEROES, { offset: 512, length: 1024, flags: NBD_CMD_FLAG_NO_HOLE }],
      [NBD_CMD_WRITE, { data: new Uint8Array(512), flags: NBD_CMD_FLAG_FUA }],
      [NBD_CMD_TRIM, { length: 512, flags: NBD_CMD_FLAG_FUA }],
      [NBD_CMD_WRITE_ZEROES, { length: 512, flags: NBD_CMD_FLAG_FUA }],
      [NBD_CMD_READ, { length: 512, flags: NBD_CMD_FLAG_FUA }],
    ];
    for (const [type, request] of calls) assert.equal((await client.call(type, request)).error, 0);
    assert.deepEqual(disk.log, [
      'flush',
      'discard 512+1024',
      'zero, may unmap 512+1024',
      'zero 512+1024',
      'write 0+512',
      'flush',
      'discard 0+512',
      'flush',
      'zero, may unmap 0+512',
      'flush',
      'read 0+512',
    ]);
  });

  test(`${how}: a failing disk fails the request by its errno, returns its buffers, and goes on`, async () => {
    const { client, disk } = await serving(structured, { maxTransfer: 4096 });
    for (const [code, error] of [
      ['EIO', NBD_EIO],
      ['EROFS', NBD_EPERM],
      ['EINVAL', NBD_EINVAL],
      ['ENOTSUP', NBD_ENOTSUP],
      ['ENODEV', NBD_EIO],
    ] as const) {
      disk.before = () => Promise.reject(new DiskError(code, 'out of order'));
      const data = new Uint8Array(20_000);
      for (const [type, request] of [
        [NBD_CMD_READ, { length: 512 }],
        [NBD_CMD_READ, { length: 20_000 }],
        [NBD_CMD_WRITE, { data }],
        [NBD_CMD_WRITE, { data: data.subarray(0, 5), offset: 3 }],
        [NBD_CMD_FLUSH, {}],
        [NBD_CMD_TRIM, { length: 512 }],
        [NBD_CMD_WRITE_ZEROES, { length: 700, offset: 3 }],
      ] as const)
        assert.equal((await client.call(type, request)).error, error);
    }
    disk.before = () => undefined;
    assert.equal((await client.call(NBD_CMD_READ, { length: 512 })).error, 0);
    await settled();
    assert.equal(disk.lent, 0);
  });

  test(`${how}: a write whose flush fails has failed`, async () => {
    const { client, disk } = await serving(structured);
    disk.before = (request) => {
      if (request === 'flush') throw new DiskError('EIO', 'no flush');
    };
    const request = { data: new Uint8Array(512), flags: NBD_CMD_FLAG_FUA };
    assert.equal((await client.call(NBD_CMD_WRITE, request)).error, NBD_EIO);
  });

  test(`${how}: a disk that has no buffer to give fails the request, with its payload taken`, async () => {
    const { client, disk } = await serving(structured, { maxTransfer: 4096 });
    const buffer = disk.buffer.bind(disk);
    disk.buffer = () => Promise.reject(new DiskError('ENODEV', 'unplugged'));
    assert.equal((await client.call(NBD_CMD_WRITE, { data: new Uint8Array(9000) })).error, NBD_EIO);
    for (let i = 0; i < 5; i++)
      assert.equal((await client.call(NBD_CMD_READ, { length: 1 << 20 })).error, NBD_EIO);
    disk.buffer = buffer;
    assert.equal((await client.call(NBD_CMD_READ, { length: 9000 })).error, 0);
  });

  test(`${how}: a refused write's payload is not taken for requests`, async () => {
    const { client, disk } = await serving(structured);
    const payload = requestBytes(NBD_CMD_WRITE, { data: new Uint8Array(512) });
    assert.equal((await client.call(NBD_CMD_WRITE, { offset: 1 << 20, data: payload })).error, NBD_ENOSPC);
    const tooLong = new Uint8Array((1 << 25) + 512);
    assert.equal((await client.call(NBD_CMD_WRITE, { data: tooLong })).error, NBD_EINVAL);
    assert.equal((await client.call(NBD_CMD_FLUSH)).error, 0);
    assert.deepEqual(disk.log, ['flush']);
  });
}

test('a structured read of one piece is one chunk; a longer one is chunks and an end', async () => {
  const { client } = await serving(true, { maxTransfer: 4096 });
  client.send(requestBytes(NBD_CMD_READ, { offset: 8192, length: 4096, cookie: 7n }));
  const only = await client.reply();
  assert.deepEqual(
    [only.chunk, only.cookie, only.offset, only.data.length, only.done],
    [NBD_REPLY_TYPE_OFFSET_DATA, 7n, 8192, 4096, true],
  );
  client.send(requestBytes(NBD_CMD_READ, { offset: 0, length: 8192 }));
  const chunks = [await client.reply(), await client.reply(), await client.reply()];
  assert.deepEqual(
    chunks.map(({ chunk, offset, done }) => [chunk, offset, done]),
    [
      [NBD_REPLY_TYPE_OFFSET_DATA, 0, false],
      [NBD_REPLY_TYPE_OFFSET_DATA, 4096, false],
      [NBD_REPLY_TYPE_NONE, 0, true],
    ],
  );
});

test('a structured error carries a message for people, cut between characters when it is long', async () => {
  const { client, disk } = await serving(true);
  client.send(requestBytes(NBD_CMD_READ, { offset: 1 << 20, length: 512 }));
  const { chunk, message } = await client.reply();
  assert.deepEqual(
    [chunk, message],
    [NBD_REPLY_TYPE_ERROR, '512 bytes at 1048576: past the end of the export at 1048576'],
  );
  disk.before = () => Promise.reject(new DiskError('EIO', `x${'ü'.repeat(3000)}`));
  client.send(requestBytes(NBD_CMD_FLUSH));
  assert.equal((await client.reply()).message, `x${'ü'.repeat(255)}`);
});

test('a read that fails in its middle is one failed reply, simple or structured', async () => {
  for (const structured of [false, true]) {
    const { client, disk } = await serving(structured, { maxTransfer: 4096 });
    disk.before = (request) => {
      if (request === 'read 4096+4096') throw new DiskError('EIO', 'a bad block');
    };
    assert.equal((await client.call(NBD_CMD_READ, { length: 12_288 })).error, NBD_EIO);
    assert.equal((await client.call(NBD_CMD_FLUSH)).error, 0);
    assert.equal(disk.lent, 0);
  }
});

test('requests run side by side and are answered as they finish, by their cookies', async () => {
  const { client, disk } = await serving(true);
  const slow = gate();
  disk.before = (request) => (request === 'read 0+512' ? slow.passed : undefined);
  const cookie = 0xfedc_ba98_7654_3210n;
  client.send(
    requestBytes(NBD_CMD_READ, { offset: 0, length: 512, cookie }),
    requestBytes(NBD_CMD_READ, { offset: 512, length: 512, cookie: 2n }),
    requestBytes(NBD_CMD_FLUSH, { cookie: 3n }),
  );
  const first = new Set([(await client.reply()).cookie, (await client.reply()).cookie]);
  assert.deepEqual(first, new Set([2n, 3n]));
  slow.open();
  assert.equal((await client.reply()).cookie, cookie);
});

test('no more than 64 requests of a connection are under way', async () => {
  const { client, disk } = await serving(false);
  const hold = gate();
  let started = 0;
  disk.before = () => {
    started++;
    return hold.passed;
  };
  client.send(...Array.from({ length: 200 }, () => requestBytes(NBD_CMD_READ, { length: 512 })));
  await settled();
  assert.equal(started, MAX_REQUESTS);
  hold.open();
  for (let i = 0; i < 200; i++) assert.equal((await client.reply(512)).error, 0);
  assert.equal(started, 200);
});

test('a client keeps no more than 4 MiB of guest memory busy, in one request or in many', async () => {
  for (const lengths of [Array.from({ length: 6 }, () => 1 << 20), [1 << 23]]) {
    const { client, disk } = await serving(true, { maxTransfer: 1 << 20 }, 1 << 23);
    client.stream.pause();
    client.send(...lengths.map((length) => requestBytes(NBD_CMD_READ, { length })));
    await settled();
    assert.equal(disk.lent, MAX_LENT);
    client.stream.resume();
    for (let left = lengths.length; left > 0; ) if ((await client.reply()).done) left--;
    assert.equal(disk.lent, 0);
  }
});

test('a transfer of the disk that is longer than that goes alone', async () => {
  const { client, disk } = await serving(false, { maxTransfer: 1 << 23 }, 1 << 23);
  client.stream.pause();
  client.send(requestBytes(NBD_CMD_READ, { length: 1 << 23 }), requestBytes(NBD_CMD_READ, { length: 512 }));
  await settled();
  assert.equal(disk.lent, 1 << 23);
  client.stream.resume();
  assert.equal((await client.reply(1 << 23)).error, 0);
  assert.equal((await client.reply(512)).error, 0);
});

test('a client has no more than 16 MiB of payload under way', async () => {
  const { client, disk } = await serving(false, { maxTransfer: 1 << 16 }, 1 << 22);
  client.stream.pause();
  client.send(...Array.from({ length: 6 }, () => requestBytes(NBD_CMD_READ, { length: 1 << 22 })));
  await settled();
  assert.equal(disk.log.length << 16, MAX_PAYLOAD);
  client.stream.resume();
  const half = 1 << 21;
  await client.take(16 + half);
  await settled();
  assert.equal(disk.log.length << 16, MAX_PAYLOAD);
  await client.take(half);
  for (let i = 1; i < 6; i++) assert.equal((await client.reply(1 << 22)).error, 0);
});

test('a client that takes no replies stops being read, and is hung up on when nothing moves', async () => {
  const { client, clock, disk, over } = await serving(false, { maxTransfer: 1 << 16 });
  client.stream.pause();
  const requests = Buffer.concat(
    Array.from({ length: 20_000 }, () => requestBytes(NBD_CMD_READ, { length: 1 << 15 })),
  );
  client.send(requests);
  await settled();
  assert.equal(disk.log.length, MAX_REQUESTS);
  clock.advance(STALL_MILLISECONDS);
  await settled();
  assert.equal(disk.lent, MAX_REQUESTS << 15);
  clock.advance(STALL_MILLISECONDS);
  assert.match(String(await over), /nothing moved in 30000 ms/);
  assert.equal(disk.lent, 0);
});

test('a client that announces a payload and sends none is hung up on, its buffer returned', async () => {
  const { client, clock, disk, over } = await serving(false);
  client.send(requestBytes(NBD_CMD_WRITE, { length: 4096 }));
  await settled();
  assert.equal(disk.lent, 4096);
  clock.advance(STALL_MILLISECONDS);
  client.send(new Uint8Array(1));
  await settled();
  clock.advance(STALL_MILLISECONDS);
  await settled();
  assert.equal(disk.lent, 4096);
  clock.advance(STALL_MILLISECONDS);
  assert.match(String(await over), /nothing moved/);
  assert.equal(disk.lent, 0);
});

test('a client that owes nothing may be silent for ever, and a slow disk is not its fault', async () => {
  const { client, clock, disk } = await serving(false);
  const hold = gate();
  disk.before = () => hold.passed;
  client.stream.pause();
  client.send(requestBytes(NBD_CMD_READ, { length: 1 << 20 }));
  for (let i = 0; i < 10; i++) {
    await settled();
    clock.advance(STALL_MILLISECONDS);
  }
  hold.open();
  await settled();
  clock.advance(STALL_MILLISECONDS);
  await settled();
  client.stream.resume();
  assert.equal((await client.reply(1 << 20)).error, 0);
});

test('NBD_CMD_DISC: what is under way is answered, then the connection ends', async () => {
  const { client, disk, over } = await serving(false);
  const hold = gate();
  disk.before = () => hold.passed;
  client.send(requestBytes(NBD_CMD_READ, { length: 512, cookie: 1n }), requestBytes(NBD_CMD_DISC));
  client.send(requestBytes(NBD_CMD_FLUSH, { cookie: 2n }));
  await settled();
  hold.open();
  assert.equal((await client.reply(512)).cookie, 1n);
  assert.equal(await client.hungUp(), true);
  client.stream.end();
  assert.equal(await over, undefined);
  assert.deepEqual(disk.log, ['read 0+512']);
});

test('a client that was told goodbye may not keep its end open for ever', async () => {
  const { client, clock, over } = await serving(false);
  client.send(requestBytes(NBD_CMD_DISC));
  assert.equal(await client.hungUp(), true);
  clock.advance(LINGER_MILLISECONDS);
  assert.equal(await over, undefined);
  assert.equal(client.stream.destroyed, true);
  assert.equal(clock.pending, 0);
});

test('a client that sends its last requests and shuts its side still gets the answers', async () => {
  const { client, over } = await serving(false);
  client.send(requestBytes(NBD_CMD_READ, { length: 512 }));
  client.stream.end();
  assert.equal((await client.reply(512)).error, 0);
  assert.equal(await client.hungUp(), true);
  assert.equal(await over, undefined);
});

for (const [what, bytes, message] of [
  ['a request with another magic', new Uint8Array(28), /magic 0x0, expected 0x25609513/],
  ['a write of over 64 MiB', requestBytes(NBD_CMD_WRITE, { length: (1 << 26) + 1 }), /at most 33554432/],
  ['an end in a header', requestBytes(NBD_CMD_READ).subarray(0, 27), /after 27 of 28 bytes/],
  ['an end before a payload', requestBytes(NBD_CMD_WRITE, { length: 512 }), /ended in a write/],
  [
    'an end in the second piece of a payload',
    requestBytes(NBD_CMD_WRITE, { length: 9000, data: new Uint8Array(5000) }),
    /after 904 of 4096 bytes/,
  ],
  [
    'an end in a refused payload',
    requestBytes(NBD_CMD_WRITE, { offset: 2 ** 40, length: 512, data: new Uint8Array(9) }),
    /after 9 of 512 bytes/,
  ],
] as const)
  test(`${what}: the connection ends and all buffers return`, async () => {
    const { client, disk, over } = await serving(false, { maxTransfer: 4096 });
    client.send(bytes);
    client.stream.end();
    assert.match(String(await over), message);
    assert.equal(disk.lent, 0);
  });

test('a client that dies while requests are under way leaves no buffer behind', async () => {
  for (const structured of [false, true]) {
    const { client, disk, over } = await serving(structured, { maxTransfer: 4096 });
    const hold = gate();
    disk.before = () => hold.passed;
    client.send(
      requestBytes(NBD_CMD_READ, { length: 20_000 }),
      requestBytes(NBD_CMD_WRITE, { offset: 40_000, data: new Uint8Array(20_000) }),
      requestBytes(NBD_CMD_WRITE, { offset: 80_000, length: 20_000, data: new Uint8Array(10_000) }),
    );
    let isOver = false;
    void over.then(() => {
      isOver = true;
    });
    await settled();
    client.stream.destroy();
    await settled();
    assert.equal(isOver, false);
    assert.notEqual(disk.lent, 0);
    hold.open();
    await over;
    assert.equal(disk.lent, 0);
  }
});

test('a write whose payload breaks off is over only when its first pieces are off the disk', async () => {
  const { client, disk, over } = await serving(false, { maxTransfer: 4096 });
  const hold = gate();
  disk.before = () => hold.passed;
  client.send(requestBytes(NBD_CMD_WRITE, { length: 20_000, data: new Uint8Array(10_000) }));
  client.stream.end();
  let isOver = false;
  void over.then(() => {
    isOver = true;
  });
  await settled();
  assert.deepEqual([isOver, disk.lent], [false, 8192]);
  hold.open();
  await over;
  assert.equal(disk.lent, 0);
});

/** One request of a random script; lengths are cut at the end of the disk. */
const step = fc.record({
  type: fc.constantFrom(NBD_CMD_READ, NBD_CMD_WRITE, NBD_CMD_WRITE_ZEROES, NBD_CMD_TRIM, NBD_CMD_FLUSH),
  offset: fc.nat({ max: 20_000 }),
  length: fc.nat({ max: 12_000 }),
  flags: fc.constantFrom(0, NBD_CMD_FLAG_FUA),
  value: fc.nat({ max: 255 }),
});

test('property: any script of requests behaves as on an array', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25 }), fc.boolean(), async (steps, structured) => {
      const { client, disk } = await serving(structured, { maxTransfer: 4096, pool: 4096 }, 16_384);
      const model = Buffer.from(disk.bytes);
      for (const { type, offset, length, flags, value } of steps) {
        const data = type === NBD_CMD_WRITE ? new Uint8Array(length).fill(value) : undefined;
        const range = type === NBD_CMD_FLUSH ? {} : { offset, length, ...(data && { data }) };
        const reply = await client.call(type, { flags, ...range });
        const outside = type !== NBD_CMD_FLUSH && offset + length > model.length;
        const refused = type === NBD_CMD_WRITE || type === NBD_CMD_WRITE_ZEROES ? NBD_ENOSPC : NBD_EINVAL;
        assert.equal(reply.error, outside ? refused : 0);
        if (outside) continue;
        if (type === NBD_CMD_READ)
          assert.deepEqual(Buffer.from(reply.data), Buffer.from(model.subarray(offset, offset + length)));
        if (type === NBD_CMD_WRITE) model.fill(value, offset, offset + length);
        if (type === NBD_CMD_WRITE_ZEROES) model.fill(0, offset, offset + length);
        if (type === NBD_CMD_TRIM)
          model.fill(
            0xdd,
            Math.ceil(offset / 512) * 512,
            Math.max(Math.ceil(offset / 512), Math.floor((offset + length) / 512)) * 512,
          );
      }
      assert.deepEqual(Buffer.from(disk.bytes), model);
      assert.equal(disk.lent, 0);
    }),
    { seed: 6, numRuns: 60 },
  );
});
