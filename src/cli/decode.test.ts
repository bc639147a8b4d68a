// The command in this process: answers, logs in pieces of every size, and calls that are wrong.

import assert from 'node:assert/strict';
import { Readable, Writable } from 'node:stream';
import { test } from 'node:test';
import fc from 'fast-check';
import { type DecodeOptions, decodeCommand } from './decode.ts';
import { UsageError } from './usage.ts';

/** The exit status and what was printed, byte for byte as Latin-1. */
async function run(words: string[], options: DecodeOptions = {}, input: Iterable<Uint8Array> = []) {
  let out = '';
  const output = new Writable({
    write(chunk: Buffer, _encoding, done) {
      out += chunk.toString('latin1');
      done();
    },
  });
  const status = await decodeCommand(words, options, { input: Readable.from(input), output });
  return { status, out };
}

const bytes = (text: string): Buffer => Buffer.from(text, 'latin1');
const log = (text: string, options: DecodeOptions = {}) => run(['-'], options, [bytes(text)]);

const answers: [word: string, status: number, text: string][] = [
  ['0x8000000000044aa8', 0, 'grant 68 (0x44), offset 0xaa8'],
  ['0X8000000000044AA8', 0, 'grant 68 (0x44), offset 0xaa8'],
  ['8000000000044aa8', 0, 'grant 68 (0x44), offset 0xaa8'],
  ['9223372036855057064', 0, 'grant 68 (0x44), offset 0xaa8'],
  ['0x80000000_00044aa8', 0, 'grant 68 (0x44), offset 0xaa8'],
  ['0x8000000000044aa8+928', 0, 'grant 68 (0x44), offset 0xaa8, 928 bytes in 1 page'],
  ['0x8000000000008ff0+0x20', 0, 'grants 8-9 (0x8-0x9), offset 0xff0, 32 bytes in 2 pages'],
  ['0x8000000000044aa8+1', 0, 'grant 68 (0x44), offset 0xaa8, 1 byte in 1 page'],
  [
    '0x8000000000001000',
    0,
    'grant 1 (0x1), offset 0x0; references below 8 are reserved (0 console, 1 xenstore)',
  ],
  ['0x8000000007fff000', 0, 'grant 32767 (0x7fff), offset 0x0'],
  [
    '0x8000000008000000',
    0,
    "grant 32768 (0x8000), offset 0x0; needs a grant table of 65 frames, 64 are Xen's default",
  ],
  ['0x44aa8', 1, 'not a grant address: bit 63 is clear, so it is a plain address'],
  ['0', 1, 'not a grant address: bit 63 is clear, so it is a plain address'],
  [
    '0xffffffffffffffff',
    1,
    'not a grant address: all bits are set, the value of a failed mapping (DMA_MAPPING_ERROR)',
  ],
  [
    '0x8001000000044aa8',
    1,
    'not a grant address: of bits 44-62, 48 is set; a decoder that ignores them takes it for grant 0x44, offset 0xaa8',
  ],
  [
    '0x80000ffffffffff0+0x11',
    1,
    'not a grant address: 0x11 bytes from reference 0xffffffff, offset 0xff0, run past the last reference',
  ],
  ['0x8000000000008000+0', 1, 'not a grant address: a length of 0 touches no page'],
];

for (const [word, status, text] of answers)
  test(`G4 G5: decode ${word}`, async () => {
    assert.deepEqual(await run([word]), { status, out: `${word}: ${text}\n` });
  });

test('several addresses are answered in their order; one that is none decides the status', async () => {
  const { status, out } = await run(['0x8000000000008000', '0x1', '0x8000000000009000']);
  assert.equal(status, 1);
  assert.deepEqual(out.match(/^\w+: (grant|not a grant)/gm), [
    '0x8000000000008000: grant',
    '0x1: not a grant',
    '0x8000000000009000: grant',
  ]);
});

test('--ref and --offset make an address that decodes to them', async () => {
  assert.deepEqual(await run([], { ref: 0x44, offset: 0xaa8 }), { status: 0, out: '0x8000000000044aa8\n' });
  assert.equal((await run([], { ref: 0 })).out, '0x8000000000000000\n');
  assert.equal((await run([], { ref: 0xffff_ffff, offset: 0xfff })).out, '0x80000fffffffffff\n');
  const { out } = await run([], { ref: 68, offset: 2728, json: true });
  assert.deepEqual(JSON.parse(out), {
    input: '0x8000000000044aa8',
    address: '0x8000000000044aa8',
    grant: true,
    reference: 68,
    offset: 2728,
  });
});

test('--json is an object a line; numbers of 64 bits are strings', async () => {
  const { status, out } = await run(['0x8000000000008ff0+0x20', '0x44AA8'], { json: true });
  assert.equal(status, 1);
  assert.deepEqual(
    out
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as unknown),
    [
      {
        input: '0x8000000000008ff0+0x20',
        address: '0x8000000000008ff0',
        grant: true,
        reference: 8,
        offset: 0xff0,
        length: 32,
        pages: 2,
        lastReference: 9,
      },
      {
        input: '0x44AA8',
        address: '0x0000000000044aa8',
        grant: false,
        fault: 'bit-63-clear',
        reason: 'bit 63 is clear, so it is a plain address',
      },
    ],
  );
});

const wrongCalls: [words: string[], options: DecodeOptions, says: RegExp][] = [
  [[], {}, /name an address, - for the standard input, or a grant with --ref/],
  [['foo'], {}, /"foo" is no address: expected one such as/],
  [['0x8000000000008000', 'foo'], {}, /"foo"/],
  [[''], {}, /"" is no address/],
  [['0x'], {}, /"0x"/],
  [['0x8000000000008000+'], {}, /is no address/],
  [['0x8000000000008000+-1'], {}, /is no address/],
  [['0x18000000000044aa8'], {}, /more than 64 bits/],
  [['18446744073709551616'], {}, /more than 64 bits/],
  [['44aa8'], {}, /write 0x44aa8 if it is hexadecimal/],
  [['8000000000044008'], {}, /may be decimal or hexadecimal: write 0x8000000000044008/],
  [['-', '0x8000000000008000'], {}, /-: the standard input is read alone/],
  [['0x8000000000008000'], { ref: 8 }, /--ref makes an address/],
  [[], { offset: 8 }, /add --ref/],
];

for (const [words, options, says] of wrongCalls)
  test(`O1: decode ${words.join(' ')} ${JSON.stringify(options)} is a wrong call, and prints nothing`, async () => {
    let written = '';
    const output = new Writable({
      write(chunk, _encoding, done) {
        written += chunk;
        done();
      },
    });
    const call = decodeCommand(words, options, { input: Readable.from([]), output });
    await assert.rejects(call, (error) => error instanceof UsageError && says.test(error.message));
    assert.equal(written, '');
  });

const GRANT = '[grant 68 (0x44), offset 0xaa8]';
const LONG = '[grant 68 (0x44), offset 0xaa8, 928 bytes in 1 page]';

const annotated: [what: string, line: string, expected: string, status: number][] = [
  ['dmesg', '[ 1.0] vio: map 0x8000000000044aa8 ok', `[ 1.0] vio: map 0x8000000000044aa8 ${GRANT} ok`, 0],
  ['capitals', 'at 0X8000000000044AA8.', `at 0X8000000000044AA8 ${GRANT}.`, 0],
  ['without 0x', 'dma 8000000000044aa8,', `dma 8000000000044aa8 ${GRANT},`, 0],
  ['our own form', 'buffer 0x80000000_00044aa8, 5', `buffer 0x80000000_00044aa8 ${GRANT}, 5`, 0],
  [
    'Rust',
    'addr: GuestAddress(9223372036855057064), len: 928,',
    `addr: GuestAddress(9223372036855057064 ${LONG}), len: 928,`,
    0,
  ],
  ['+LENGTH', 'x 0x8000000000044aa8+0x3a0.', `x 0x8000000000044aa8+0x3a0 ${LONG}.`, 0],
  ['len', 'addr=0x8000000000044aa8, len=928', `addr=0x8000000000044aa8 ${LONG}, len=928`, 0],
  [
    'DMA debug',
    '[device address=0x8000000000044aa8] [map size=928 bytes]',
    `[device address=0x8000000000044aa8 ${LONG}] [map size=928 bytes]`,
    0,
  ],
  ['JSON', '{"addr":"0x8000000000044aa8","len":928}', `{"addr":"0x8000000000044aa8 ${LONG}","len":928}`, 0],
  [
    'two in a line',
    '0x8000000000044aa8 0x8000000000044aa8',
    `0x8000000000044aa8 ${GRANT} 0x8000000000044aa8 ${GRANT}`,
    0,
  ],
  [
    'bits 44-62',
    'dma 0x8001000000044aa8',
    'dma 0x8001000000044aa8 [not a grant address: of bits 44-62, 48 is set; a decoder that ignores them takes it for grant 0x44, offset 0xaa8]',
    1,
  ],
  [
    'a range that wraps',
    'dma 0x80000fffffffffff len 2',
    'dma 0x80000fffffffffff [not a grant address: 0x2 bytes from reference 0xffffffff, offset 0xfff, run past the last reference] len 2',
    1,
  ],
  [
    'an address alone in its line',
    '  0x44aa8\r',
    '  0x44aa8 [not a grant address: bit 63 is clear, so it is a plain address]\r',
    1,
  ],
];

for (const [what, line, expected, status] of annotated)
  test(`a log: ${what}`, async () => {
    assert.deepEqual(await log(`${line}\n`), { status, out: `${expected}\n` });
  });

const untouched = [
  'BUG: 0xffff888000044aa8 ffff888000044aa8 0xffffffffffffffff',
  '[mem 0x0000000000001000-0x00000000000fffff] usable 0x44aa8',
  '80010000000ffaa8 without 0x and with bits 44-62',
  'x0x8000000000044aa8 0x8000000000044aa8x 0x8000000000044aa80 00x8000000000044aa8 180000000000044aa8',
  '0x8000000000044aa 1234567890123456789 92233720368550570640',
  '5',
  '44aa8',
  '0x1ffffffffffffffff',
  '-',
  '\x00\x01\xff\xfe \xe2\x82\xac',
  '',
];

for (const line of untouched)
  test(`a log: ${JSON.stringify(line)} is passed on as it is`, async () => {
    assert.deepEqual(await log(`${line}\n${line}`), { status: 0, out: `${line}\n${line}` });
  });

test('--json on a log tells where each address is, and leaves the log out', async () => {
  const { status, out } = await log('first\n\xff at 0x8000000000044aa8\n0x5', { json: true });
  assert.equal(status, 1);
  const lines = out.trimEnd().split('\n');
  assert.deepEqual(
    lines.map((line) => JSON.parse(line) as unknown),
    [
      {
        line: 2,
        column: 6,
        input: '0x8000000000044aa8',
        address: '0x8000000000044aa8',
        grant: true,
        reference: 68,
        offset: 2728,
      },
      {
        line: 3,
        column: 1,
        input: '0x5',
        address: '0x0000000000000005',
        grant: false,
        fault: 'bit-63-clear',
        reason: 'bit 63 is clear, so it is a plain address',
      },
    ],
  );
});

/** The log in chunks that end where `cuts` say. */
function chunks(text: string, cuts: readonly number[]): Buffer[] {
  const ends = [...cuts.map((cut) => cut % (text.length + 1)), text.length].sort((a, b) => a - b);
  return ends.map((end, index) => bytes(text.slice(ends[index - 1] ?? 0, end)));
}

test('R: wherever the input is cut into chunks, the output is the same', async () => {
  const piece = fc.constantFrom(
    ...['0x8000000000044aa8', '0x80000000_00008ff0+0x20', ' len 32', '\n', ' ', 'x', '\xff', '0x44aa8', ','],
  );
  const text = fc.array(piece, { maxLength: 30 }).map((pieces) => pieces.join(''));
  await fc.assert(
    fc.asyncProperty(text, fc.array(fc.nat(), { maxLength: 8 }), async (whole, cuts) => {
      assert.deepEqual(await run(['-'], {}, chunks(whole, cuts)), await log(whole));
    }),
    { seed: 80, numRuns: 300 },
  );
});

for (const [what, filler] of [
  ['blanks', 'word '],
  ['commas', 'word,'],
  ['nothing', 'w'],
] as const)
  test(`R: in a line of a megabyte with ${what} between its words, all addresses are found`, async () => {
    const stretch = `${filler.repeat(Math.ceil(70_001 / filler.length))},0x8000000000044aa8,`;
    const whole = stretch.repeat(15);
    const { status, out } = await run(['-'], {}, chunks(whole, [1, 65_536, 131_072, 200_003, 500_000]));
    assert.equal(status, 0);
    assert.ok(out === whole.replaceAll('0x8000000000044aa8', `$& ${GRANT}`), 'the text is not the same');
  });

test('R: wherever a long line is cut to be passed on, an address and its length stay in one piece', async () => {
  const address = '0x8000000000008ff0+0x20';
  const text = '[grants 8-9 (0x8-0x9), offset 0xff0, 32 bytes in 2 pages]';
  for (const filler of ['word,'.repeat(14_000), 'word '.repeat(14_000)])
    for (let end = 0; end <= 140; end++) {
      const whole = `${filler},${address},${'w'.repeat(120)}`;
      const { out } = await run(['-'], {}, chunks(whole, [filler.length + end]));
      assert.ok(out === whole.replace(address, `$& ${text}`), `cut ${end} bytes after the filler`);
    }
});

test('R: the end of a word of any length is no address, wherever it is cut', async () => {
  const word = `${'0'.repeat(70_000)}x8000000000044aa8 and ${'8'.repeat(70_000)}`;
  for (const cut of [69_999, 70_000, 70_001, 70_017])
    assert.deepEqual(await run(['-'], {}, chunks(word, [cut])), { status: 0, out: word });
});

test('R: of a line that never ends, what has been read is passed on, and little of it is kept', async () => {
  let written = 0;
  let read = 0;
  let most = 0;
  const chunk = Buffer.alloc(1 << 16, 'abcdefgh');
  async function* endless() {
    for (let count = 0; count < 200; count++) {
      read += chunk.length;
      most = Math.max(most, read - written);
      yield chunk;
    }
  }
  const output = new Writable({
    highWaterMark: 1,
    write(bytesOut: Buffer, _encoding, done) {
      written += bytesOut.length;
      done();
    },
  });
  await decodeCommand(['-'], {}, { input: Readable.from(endless(), { highWaterMark: 1 }), output });
  assert.equal(written, read);
  assert.ok(most <= 16 * chunk.length, `${most} bytes were kept`);
});

test('O: a reader that goes away is no failure; input that cannot be read is one, with its reason', async () => {
  const failure = (code: string, syscall: string) =>
    Object.assign(new Error(`${code}: ${syscall}`), { code, syscall });
  const closed = (error: Error) =>
    new Writable({
      write(_chunk, _encoding, done) {
        done(error);
      },
    });
  const input = () => Readable.from([bytes('0x44aa8\n')]);
  const call = (output: Writable) => decodeCommand(['-'], {}, { input: input(), output });
  assert.equal(await call(closed(failure('EPIPE', 'write'))), 0);
  assert.equal(await call(closed(failure('ENOSPC', 'write'))), 1);
  const unreadable = new Readable({
    read() {
      this.destroy(failure('EIO', 'read'));
    },
  });
  const output = new Writable({ write: (_chunk, _encoding, done) => done() });
  await assert.rejects(
    decodeCommand(['-'], {}, { input: unreadable, output }),
    /the standard input cannot be read: EIO/,
  );
});
