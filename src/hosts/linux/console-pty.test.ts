// Consoles at pseudo terminals and at standard input and output: console-pty.ts and console-terminal.ts.

import assert from 'node:assert/strict';
import {
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { numbered, TestLine, TestThread } from './console-endpoints.test.helper.ts';
import { ConsolePty, openPty } from './console-pty.ts';
import { CONSOLE_OUTPUT } from './console-stream.ts';
import { ConsoleTerminal, openWithoutBlocking, type TerminalEnds } from './console-terminal.ts';
import { Eventfds, newEventfd } from './epoll.ts';
import { native, openDescriptors } from './native.test.helper.ts';

const TIOCSWINSZ = 0x5414;
const O_NONBLOCK = 0x800;
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

function pty(isConsole = true) {
  const before = openDescriptors();
  const thread = new TestThread();
  const terminal = openPty(thread.libc, thread.arena);
  const console = new ConsolePty(thread, terminal, isConsole);
  const line = new TestLine(console.endpoint);
  thread.rest();
  const finish = (): void => {
    console.close();
    closeSync(terminal.fd);
    thread.close();
    assert.equal(openDescriptors(), before, 'every descriptor was closed');
  };
  return { thread, line, path: terminal.path, finish };
}

test('a terminal program comes and goes: every byte is the same, none is echoed', native, () => {
  const { thread, line, path, finish } = pty();
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

test('D9: what is said to a terminal that nobody has open is kept, the last 64 KiB of it', native, () => {
  const { thread, line, path, finish } = pty();
  const bytes = numbered(2 * CONSOLE_OUTPUT);
  assert.equal(line.write(bytes), 0);
  const program = openTerminal(path);
  const heard = thread.hearing(program);
  thread.until(() => heard.length === CONSOLE_OUTPUT);
  assert.deepEqual(Buffer.from(heard), bytes.subarray(CONSOLE_OUTPUT));
  closeSync(program);
  finish();
});

test('a port for programs knows whether its terminal is open', native, () => {
  const { thread, line, path, finish } = pty(false);
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
  () => {
    const { thread, line, path, finish } = pty();
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

function terminal(thread: TestThread, ends: TerminalEnds, isConsole = true) {
  const console = new ConsoleTerminal(thread, ends, isConsole);
  const line = new TestLine(console.endpoint);
  return { line, close: () => console.close() };
}

test(
  'standard input and output that are files and /dev/null: all that is in them, and then the end',
  native,
  (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'grantio-console-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const before = openDescriptors();
    const thread = new TestThread();
    writeFileSync(join(folder, 'in'), numbered(100_000));
    for (const [name, length] of [
      [join(folder, 'in'), 100_000],
      ['/dev/null', 0],
    ] as const) {
      const given = [openSync(name, 'r'), openSync(join(folder, 'out'), 'w')];
      const input = openWithoutBlocking(thread.libc, given[0], 'read');
      const output = openWithoutBlocking(thread.libc, given[1], 'write');
      const { line, close } = terminal(thread, { input, output, resized: -1 });
      line.room = 1000;
      line.write(numbered(50_000));
      thread.rest();
      line.allow(Number.POSITIVE_INFINITY);
      thread.rest();
      assert.equal(thread.rest(), 0);
      assert.deepEqual(Buffer.from(line.received), numbered(length));
      assert.deepEqual(readFileSync(join(folder, 'out')), numbered(50_000));
      close();
      for (const fd of [...given, input, output]) closeSync(fd);
    }
    thread.close();
    assert.equal(openDescriptors(), before);
  },
);

test(
  'a terminal whose size changes rings an eventfd; the descriptor that is given keeps blocking',
  native,
  () => {
    const before = openDescriptors();
    const thread = new TestThread();
    const { fd, path } = openPty(thread.libc, thread.arena);
    const shell = openSync(path, constants.O_RDWR | constants.O_NOCTTY);
    setSize(thread, shell, 80, 24);
    const [input, output] = (['read', 'write'] as const).map((direction) =>
      openWithoutBlocking(thread.libc, shell, direction),
    );
    const flags = [shell, input, output].map((each) => thread.libc.fcntl(each, F_GETFL, 0) & O_NONBLOCK);
    assert.deepEqual(flags, [0, O_NONBLOCK, O_NONBLOCK]);
    const resized = newEventfd(thread.libc);
    const { line, close } = terminal(thread, { input, output, resized });
    setSize(thread, shell, 100, 30);
    new Eventfds(thread.libc, thread.arena).ring(resized);
    thread.rest();
    assert.deepEqual(line.sizes, [
      { columns: 80, rows: 24 },
      { columns: 100, rows: 30 },
    ]);
    const shown = thread.hearing(fd);
    writeSync(fd, 'typed');
    line.write(Buffer.from('shown'));
    thread.until(() => line.received.length === 5 && shown.length === 5);
    assert.deepEqual(
      [line.received, shown].map((bytes) => Buffer.from(bytes).toString()),
      ['typed', 'shown'],
    );
    close();
    for (const each of [fd, shell, input, output, resized]) closeSync(each);
    thread.close();
    assert.equal(openDescriptors(), before);
  },
);
