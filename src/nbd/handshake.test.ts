import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryDisk } from '../../test/support/memory-disk.ts';
import { connected, infoData, optionBytes } from '../../test/support/nbd.ts';
import { settled } from '../../test/support/settled.ts';
import {
  NBD_CMD_READ,
  NBD_FLAG_FIXED_NEWSTYLE,
  NBD_FLAG_NO_ZEROES,
  NBD_INFO_BLOCK_SIZE,
  NBD_INFO_DESCRIPTION,
  NBD_INFO_EXPORT,
  NBD_INFO_NAME,
  NBD_OPT_ABORT,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_GO,
  NBD_OPT_INFO,
  NBD_OPT_LIST,
  NBD_OPT_STARTTLS,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_OPTION_MAGIC,
  NBD_REP_ACK,
  NBD_REP_ERR_INVALID,
  NBD_REP_ERR_TOO_BIG,
  NBD_REP_ERR_UNKNOWN,
  NBD_REP_ERR_UNSUP,
  NBD_REP_INFO,
  NBD_REP_SERVER,
  nbdBlockSizeInfo,
  nbdExportInfo,
  nbdExportNameReply,
  nbdOption,
} from '../abi/nbd.ts';
import { ProtocolViolation } from '../errors.ts';
import { HANDSHAKE_MILLISECONDS } from './connection.ts';

const exports = [
  { name: 'first', description: 'ein Gerät', disk: new MemoryDisk(8192) },
  { name: 'second', disk: new MemoryDisk(4096) },
];

const hex = (text: string): Uint8Array => Buffer.from(text, 'hex');

test('the greeting offers fixed newstyle without zeroes', async () => {
  const { client } = connected(exports);
  const greeting = await client.greet();
  assert.equal(greeting.handshakeFlags, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
});

test('NBD_OPT_LIST names the exports in order, with their descriptions', async () => {
  const { client } = connected(exports);
  await client.greet();
  const first = await client.ask(NBD_OPT_LIST);
  assert.deepEqual([first.option, first.type], [NBD_OPT_LIST, NBD_REP_SERVER]);
  assert.equal(first.text, '\0\0\0\x05firstein Gerät');
  assert.equal((await client.optionReply()).text, '\0\0\0\x06second');
  assert.equal((await client.optionReply()).type, NBD_REP_ACK);
});

test('NBD_OPT_INFO tells what was asked for, size and flags in any case, and the handshake goes on', async () => {
  const { client } = connected(exports);
  await client.greet();
  const wanted = [NBD_INFO_NAME, NBD_INFO_DESCRIPTION, NBD_INFO_BLOCK_SIZE, 77];
  const size = nbdExportInfo.over((await client.ask(NBD_OPT_INFO, infoData('', wanted))).data);
  assert.deepEqual([size.type, size.size], [NBD_INFO_EXPORT, 8192]);
  assert.equal((await client.optionReply()).text, '\0\x01first');
  assert.equal((await client.optionReply()).text, '\0\x02ein Gerät');
  const sizes = nbdBlockSizeInfo.over((await client.optionReply()).data);
  assert.deepEqual([sizes.minimum, sizes.preferred, sizes.maximumPayload], [1, 4096, 1 << 25]);
  assert.equal((await client.optionReply()).type, NBD_REP_ACK);

  assert.equal(
    (await client.ask(NBD_OPT_INFO, infoData('second', [NBD_INFO_DESCRIPTION]))).type,
    NBD_REP_INFO,
  );
  assert.equal((await client.optionReply()).type, NBD_REP_ACK);
});

test('NBD_OPT_GO enters the transmission phase', async () => {
  const { client } = connected(exports);
  assert.equal((await client.go('second')).size, 4096);
  assert.equal((await client.call(NBD_CMD_READ, { length: 512 })).error, 0);
});

for (const [flags, zeroes] of [
  [NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES, 0],
  [NBD_FLAG_FIXED_NEWSTYLE, 124],
  [0, 124],
])
  test(`NBD_OPT_EXPORT_NAME enters it too; client flags ${flags}: ${zeroes} zeroes`, async () => {
    const { client } = connected(exports);
    await client.greet(flags);
    client.send(optionBytes(NBD_OPT_EXPORT_NAME, Buffer.from('second')));
    const reply = await client.take(nbdExportNameReply.size - 124 + zeroes);
    assert.equal(nbdExportNameReply.over(reply).size, 4096);
    assert.equal((await client.call(NBD_CMD_READ, { length: 512 })).error, 0);
  });

test('NBD_OPT_EXPORT_NAME of no export ends the connection, the only way to say no', async () => {
  const { client, over } = connected(exports);
  await client.greet();
  client.send(optionBytes(NBD_OPT_EXPORT_NAME, Buffer.from('third')));
  assert.equal(await client.hungUp(), true);
  assert.match(String(await over), /no export "third"/);
});

test('NBD_OPT_ABORT is acknowledged and ends the connection in good order', async () => {
  const { client, over } = connected(exports);
  await client.greet();
  assert.equal((await client.ask(NBD_OPT_ABORT, Buffer.from('ignored'))).type, NBD_REP_ACK);
  assert.equal(await client.hungUp(), true);
  client.stream.end();
  assert.equal(await over, undefined);
});

for (const [what, option, data, error] of [
  ['NBD_OPT_STARTTLS', NBD_OPT_STARTTLS, '', NBD_REP_ERR_UNSUP],
  ['an unknown option', 0x7fff_ffff, '0102', NBD_REP_ERR_UNSUP],
  ['NBD_OPT_SET_META_CONTEXT', 10, '000000000000000000', NBD_REP_ERR_UNSUP],
  ['NBD_OPT_LIST with data', NBD_OPT_LIST, '00', NBD_REP_ERR_INVALID],
  ['NBD_OPT_STRUCTURED_REPLY with data', NBD_OPT_STRUCTURED_REPLY, '00', NBD_REP_ERR_INVALID],
  ['NBD_OPT_GO without data', NBD_OPT_GO, '', NBD_REP_ERR_INVALID],
  ['NBD_OPT_GO with a name longer than its data', NBD_OPT_GO, '00000001' + '0000', NBD_REP_ERR_INVALID],
  ['NBD_OPT_GO with a name of 4 GiB', NBD_OPT_GO, 'ffffffff' + '0000', NBD_REP_ERR_INVALID],
  ['NBD_OPT_GO with too few requests', NBD_OPT_GO, '00000000' + '0002' + '0003', NBD_REP_ERR_INVALID],
  ['NBD_OPT_GO with bytes left over', NBD_OPT_GO, '00000000' + '0000' + '00', NBD_REP_ERR_INVALID],
  ['NBD_OPT_INFO of no export', NBD_OPT_INFO, '00000001' + '78' + '0000', NBD_REP_ERR_UNKNOWN],
  ['NBD_OPT_LIST with 8193 bytes of data', NBD_OPT_LIST, '00'.repeat(8193), NBD_REP_ERR_TOO_BIG],
] as const)
  test(`${what}: an error reply, and the handshake goes on`, async () => {
    const { client } = connected(exports);
    await client.greet();
    const reply = await client.ask(option, hex(data));
    assert.deepEqual([reply.option, reply.type], [option, error]);
    assert.notEqual(reply.text, '');
    assert.equal((await client.ask(NBD_OPT_STRUCTURED_REPLY)).type, NBD_REP_ACK);
  });

for (const [what, bytes, message] of [
  ['unknown client flags', hex('00000004'), /unknown client flags 0x4/],
  ['client flags in the top bit', hex('80000003'), /unknown client flags 0x80000000/],
  ['an option with another magic', hex(`00000003${'00'.repeat(16)}`), /option magic 0x0/],
  [
    'an option of 4 GiB',
    Buffer.concat([
      hex('00000003'),
      nbdOption.make({ magic: NBD_OPTION_MAGIC, option: 3, length: 0xffff_ffff }).bytes,
    ]),
    /more than 1048576 bytes of options/,
  ],
  [
    'an export name of 8193 bytes',
    Buffer.concat([hex('00000003'), optionBytes(NBD_OPT_EXPORT_NAME, new Uint8Array(8193))]),
    /an export name of 8193 bytes/,
  ],
] as const)
  test(`${what}: the connection ends`, async () => {
    const { client, over } = connected(exports);
    client.send(bytes);
    const reason = await over;
    assert.ok(reason instanceof ProtocolViolation);
    assert.match(reason.message, message);
  });

test('a client that only asks is bounded in bytes', async () => {
  const { client, over } = connected(exports);
  await client.greet();
  const option = optionBytes(999, new Uint8Array(8000));
  let replies = 0;
  const asking = (async () => {
    for (;;) {
      await client.ask(999, option.subarray(16));
      replies++;
    }
  })();
  await assert.rejects(asking, /hung up/);
  assert.match(String(await over), /more than 1048576 bytes of options and no export chosen/);
  assert.equal(replies, Math.floor(1048576 / option.length));
});

test('a client that asks and never reads the answers is not answered more than the stream holds', async () => {
  const { client, over, clock } = connected(exports);
  client.stream.pause();
  const listings = Buffer.concat(Array.from({ length: 60_000 }, () => optionBytes(NBD_OPT_LIST)));
  client.send(hex('00000003'), listings);
  await settled();
  assert.ok(client.stream.readableLength < 100_000, `${client.stream.readableLength} bytes of answers`);
  clock.advance(HANDSHAKE_MILLISECONDS);
  assert.match(String(await over), /no handshake in 10000 ms/);
});

test('a client that does not finish the handshake in time is hung up on; one that does is not', async () => {
  const slow = connected(exports);
  const quick = connected(exports);
  await slow.client.greet();
  await quick.client.go();
  for (const { clock } of [slow, quick]) clock.advance(HANDSHAKE_MILLISECONDS);
  assert.match(String(await slow.over), /no handshake in 10000 ms/);
  assert.equal((await quick.client.call(NBD_CMD_READ, { length: 512 })).error, 0);
});

test('a client that leaves at once leaves in good order, and no timer behind', async () => {
  const { client, clock, over } = connected(exports);
  client.stream.end();
  assert.equal(await over, undefined);
  assert.equal(clock.pending, 0);
});
