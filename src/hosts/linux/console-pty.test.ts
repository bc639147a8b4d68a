// Consoles at pseudo terminals and at standard input and output: console-pty.ts and console-terminal.ts.

import assert from 'node:assert/strict';
import {
  closeSync,
  constants,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { numbered, TestLine, TestThread } from './console-endpoints.test.helper.ts';
import { ConsolePty, openPty } from './console-pty.ts';
import { CONSOLE_OUTPUT } from './console-stream.ts';
import { ConsoleTerminal } from './console-terminal.ts';
import { native, openDescriptors } from './native.test.helper.ts';

const TIOCSWINSZ = 0x5414;
const F_GETFL = 3;

/** Opens the program's side of a terminal. */
function openTerminal(path: string): number {
  return openSync(path, constants.O_RDWR | constants.O_NOCTTY | constants.O_NONBLOCK);
}

function setSize({ libc, arena }: TestThread, fd: number, columns: number, rows: number): void {
  const { view, address } = arena.take(8);
  view.setUint16(0, rows, true);
  view.setUint16(2, columns, true);
  assert.equal(libc.ioctl(fd, TIOCSWINSZ, address), 0);
}

function temporaryFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-console-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

function pty(t: TestContext, isConsole = true) {
  const path = join(temporaryFolder(t), 'terminal');
  const before = openDescriptors();
  const thread = new TestThread();
  const console = new ConsolePty(thread, path, isConsole);
  const line = new TestLine(console.endpoint);
  thread.rest();
  const finish = (): void => {
    console.close();
    thread.close();
    assert.equal(existsSync(path), false, 'the link has gone');
    assert.equal(openDescriptors(), before, 'every descriptor was closed');
  };
  return { thread, line, path, finish };
}

test('a terminal program comes and goes: every byte is the same, none is echoed', native, (t) => {
  const { thread, line, path, finish } = pty(t);
  const all = Uint8Array.from({ length: 256 }, (_, byte) => byte);
  for (let round = 1; round <= 3; round++) {
    const program = openTerminal(path);
    thread.rest();
    writeSync(program, all);
    thread.until(() => line.received.length === all.length);
    assert.deepEqual(line.received.splice(0), [...all]);
    const heard = thread.hearing(program);
    line.write(all);
    thread.until(() => heard.length === all.length);
    assert.deepEqual(heard, [...all]);
    closeSync(program);
    assert.ok(thread.rest() > 0);
    assert.equal(thread.rest(), 0, 'a terminal that nobody has open wakes nobody');
  }
  finish();
});

test('D9: what is said to a terminal that nobody has open is kept, the last 64 KiB of it', native, (t) => {
  const { thread, line, path, finish } = pty(t);
  const bytes = numbered(2 * CONSOLE_OUTPUT);
  assert.equal(line.write(bytes), 0);
  const program = openTerminal(path);
  const heard = thread.hearing(program);
  thread.until(() => heard.length === CONSOLE_OUTPUT);
  assert.deepEqual(Buffer.from(heard), bytes.subarray(CONSOLE_OUTPUT));
  closeSync(program);
  finish();
});

test('a port for programs knows whether its terminal is open', native, (t) => {
  const { thread, line, path, finish } = pty(t, false);
  assert.equal(line.openings.at(-1), false);
  const program = openTerminal(path);
  thread.rest();
  assert.equal(line.openings.at(-1), true);
  closeSync(program);
  thread.rest();
  assert.equal(line.openings.at(-1), false);
  finish();
});

test(
  'the size of the terminal is told when it is first known, and at the next key after it has changed',
  native,
  (t) => {
    const { thread, line, path, finish } = pty(t);
    const program = openTerminal(path);
    thread.rest();
    assert.deepEqual(line.sizes, [], 'nobody has set it');
    for (const [columns, rows] of [
      [132, 50],
      [132, 50],
      [80, 24],
    ]) {
      const before = line.received.length;
      setSize(thread, program, columns, rows);
      writeSync(program, 'x');
      thread.until(() => line.received.length > before);
    }
    assert.deepEqual(line.sizes, [
      { columns: 132, rows: 50 },
      { columns: 80, rows: 24 },
    ]);
    closeSync(program);
    finish();
  },
);

test('a link to an old terminal is replaced; what is something else stays', native, (t) => {
  const folder = temporaryFolder(t);
  const before = openDescriptors();
  const thread = new TestThread();
  symlinkSync('/dev/pts/4095', join(folder, 'old'));
  new ConsolePty(thread, join(folder, 'old'), true).close();
  writeFileSync(join(folder, 'file'), 'precious');
  symlinkSync('file', join(folder, 'link'));
  for (const name of ['file', 'link'])
    assert.throws(() => new ConsolePty(thread, join(folder, name), true), /no link to a terminal/);
  assert.throws(() => new ConsolePty(thread, join(folder, 'no', 'such'), true), { code: 'ENOENT' });
  assert.deepEqual(readdirSync(folder).sort(), ['file', 'link']);
  thread.close();
  assert.equal(openDescriptors(), before);
});

test(
  'standard input and output that are files and /dev/null: all that is in them, then the end',
  native,
  (t) => {
    const folder = temporaryFolder(t);
    const before = openDescriptors();
    const thread = new TestThread();
    writeFileSync(join(folder, 'in'), numbered(100_000));
    for (const [name, length] of [
      [join(folder, 'in'), 100_000],
      ['/dev/null', 0],
    ] as const) {
      const given = [openSync(name, 'r'), openSync(join(folder, 'out'), 'w')];
      const console = new ConsoleTerminal(thread, true, given[0], given[1]);
      const line = new TestLine(console.endpoint);
      line.room = 1000;
      line.write(numbered(50_000));
      thread.rest();
      line.allow(Number.POSITIVE_INFINITY);
      thread.rest();
      assert.equal(thread.rest(), 0);
      assert.deepEqual(Buffer.from(line.received), numbered(length));
      assert.deepEqual(readFileSync(join(folder, 'out')), numbered(50_000));
      console.close();
      for (const fd of given) closeSync(fd);
    }
    thread.close();
    assert.equal(openDescriptors(), before);
  },
);

test(
  'standard input and output that are a terminal: its size, what is typed, and it stays as it is',
  native,
  () => {
    const before = openDescriptors();
    const thread = new TestThread();
    const { fd, path } = openPty(thread.libc, thread.arena);
    const shell = openSync(path, constants.O_RDWR | constants.O_NOCTTY);
    setSize(thread, shell, 80, 24);
    const console = new ConsoleTerminal(thread, true, shell, shell);
    assert.equal(thread.libc.fcntl(shell, F_GETFL, 0) & constants.O_NONBLOCK, 0, 'the shell has it as well');
    const line = new TestLine(console.endpoint);
    setSize(thread, shell, 100, 30);
    const shown = thread.hearing(fd);
    writeSync(fd, 'typed');
    line.write(Buffer.from('shown'));
    thread.until(() => line.received.length === 5 && shown.length === 5);
    assert.deepEqual(
      [line.received, shown].map((bytes) => Buffer.from(bytes).toString()),
      ['typed', 'shown'],
    );
    assert.deepEqual(line.sizes, [
      { columns: 80, rows: 24 },
      { columns: 100, rows: 30 },
    ]);
    console.close();
    for (const each of [fd, shell]) closeSync(each);
    thread.close();
    assert.equal(openDescriptors(), before);
  },
);

test(
  'standard output that is a pipe whose reader has gone: a console goes on, a program waits',
  native,
  () => {
    const before = openDescriptors();
    const thread = new TestThread();
    const { view, address } = thread.arena.take(8);
    for (const isConsole of [true, false]) {
      assert.equal(thread.libc.pipe2(address, 0), 0);
      const [reader, writer] = [view.getInt32(0, true), view.getInt32(4, true)];
      const nothing = openSync('/dev/null', 'r');
      const console = new ConsoleTerminal(thread, isConsole, nothing, writer);
      closeSync(reader);
      const line = new TestLine(console.endpoint);
      line.write(Buffer.from('first'));
      thread.rest();
      assert.equal(line.write(numbered(100_000)) > 0, !isConsole);
      console.close();
      for (const fd of [nothing, writer]) closeSync(fd);
    }
    thread.close();
    assert.equal(openDescriptors(), before);
  },
);
