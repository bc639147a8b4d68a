// `grantio decode`: what the DMA addresses in descriptors and logs stand for, and the address of a grant.
// Before decode-answer.ts, and decode-log.ts for what comes on the standard input.

import type { Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { type Command, InvalidArgumentError } from 'commander';
import { encodeGrant, GRANT_REF_MAX } from '../abi/grant-range.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { type Answer, answerFor, answerText } from './decode-answer.ts';
import { type Found, type LogPiece, LogReader } from './decode-log.ts';
import { UsageError } from './usage.ts';

/** The command's options. */
export interface DecodeOptions {
  /** The other way: a reference, and the offset in its page. */
  readonly ref?: number;
  readonly offset?: number;
  /** Print one JSON object a line for each address. */
  readonly json?: boolean;
}

/** What the command reads and prints with, so that tests need no process. */
export interface DecodeIo {
  readonly input: Readable;
  readonly output: Writable;
}

/** Adds the command to the program. */
export function addDecodeCommand(program: Command): void {
  program
    .command('decode')
    .summary('tell which grant a DMA address stands for')
    .description('Tell which grant and which byte of its page a DMA address stands for, alone or in a log.')
    .argument('[address...]', 'ADDRESS or ADDRESS+LENGTH, hexadecimal (0x…) or decimal; - reads a log')
    .option('--ref <reference>', 'print the address of this grant instead', wholeNumber(GRANT_REF_MAX))
    .option('--offset <bytes>', 'with --ref: offset in its page', wholeNumber(XEN_PAGE_SIZE - 1))
    .option('--json', 'print one JSON object a line for each address')
    .addHelpText('after', HELP)
    .action(async (words: string[], options: DecodeOptions) => {
      process.exitCode = await decodeCommand(words, options, {
        input: process.stdin,
        output: process.stdout,
      });
    });
}

const HELP = `
With - the standard input is passed on, with what each grant address in it stands for in brackets behind
it. A length is taken from "+LENGTH", or from "len", "length" or "size" after the address.

Examples:
  grantio decode 0x8000000000044aa8
  grantio decode 0x8000000000008ff0+0x20
  grantio decode --ref 68 --offset 0xaa8
  dmesg | grantio decode -

Exit status: 0 all are grant addresses, 1 one is not, 2 the call was wrong. In a log, an address is not one
if it stands alone in its line or has the form 0x8…, with 16 digits; other numbers are passed on.`;

/** Decodes, or encodes. Returns the exit status: 0, or 1 if something is no grant address. */
export async function decodeCommand(
  words: readonly string[],
  options: DecodeOptions,
  io: DecodeIo,
): Promise<number> {
  const { ref, offset, json = false } = options;
  if (ref !== undefined) {
    if (words.length > 0) throw new UsageError('--ref makes an address: name none beside it');
    return encode(ref, offset ?? 0, json, io);
  }
  if (offset !== undefined) throw new UsageError('--offset is an offset in the page of a grant: add --ref');
  if (words.length === 0)
    throw new UsageError('decode: name an address, - for the standard input, or a grant with --ref');
  if (!words.includes('-')) return decodeWords(words, json, io);
  if (words.length > 1) throw new UsageError('-: the standard input is read alone, without other addresses');
  return decodeLog(json, io);
}

function encode(reference: number, offset: number, json: boolean, { output }: DecodeIo): number {
  const address = encodeGrant(reference, offset);
  if (typeof address !== 'bigint') throw new UsageError(address.reason);
  const text = `0x${address.toString(16)}`;
  output.write(json ? jsonLine(answerFor(text)) : `${text}\n`);
  return 0;
}

/** All words are read before the first answer is printed: a wrong call prints nothing. */
function decodeWords(words: readonly string[], json: boolean, { output }: DecodeIo): number {
  const answers = words.map(answerFor);
  for (const answer of answers)
    output.write(json ? jsonLine(answer) : `${answer.input}: ${answerText(answer)}\n`);
  return answers.every(({ grant }) => grant) ? 0 : 1;
}

async function decodeLog(json: boolean, { input, output }: DecodeIo): Promise<number> {
  const reader = new LogReader();
  let allGrants = true;
  /** What is to be printed for some pieces, all of it in one write. */
  function decoded(pieces: Iterable<LogPiece>): Buffer {
    let text = '';
    for (const piece of pieces) {
      allGrants &&= piece.found.every(({ answer }) => answer.grant);
      text += json ? piece.found.map(foundLine).join('') : annotated(piece);
    }
    return Buffer.from(text, 'latin1');
  }
  async function* transform(log: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer> {
    for await (const bytes of log) yield decoded(reader.read(bytes));
    yield decoded(reader.end());
  }
  try {
    await pipeline(input, transform, output, { end: false });
  } catch (error) {
    return lostStream(error);
  }
  return allGrants ? 0 : 1;
}

/** The exit status when a stream has failed; rejects with what the reader is to be told. */
function lostStream(error: unknown): number {
  const { code, syscall, message } = error as NodeJS.ErrnoException;
  // Whoever reads has seen enough (`| head`): there is nobody left to tell anything.
  if (code === 'EPIPE') return 0;
  // Said by main.ts, which hears of every failure of the standard output.
  if (syscall === 'write') return 1;
  if (syscall === 'read') throw new Error(`the standard input cannot be read: ${message}`, { cause: error });
  throw error;
}

/** The piece with what each address stands for behind it. */
function annotated({ text, found }: LogPiece): string {
  let done = 0;
  let result = '';
  for (const { end, answer } of found) {
    result += `${text.slice(done, end)} [${answerText(answer)}]`;
    done = end;
  }
  return result + text.slice(done);
}

const foundLine = ({ line, column, answer }: Found): string =>
  `${JSON.stringify({ line, column, ...answer })}\n`;

const jsonLine = (answer: Answer): string => `${JSON.stringify(answer)}\n`;

/** A parser for an option's number from 0 to `most`, decimal or hexadecimal. */
function wholeNumber(most: number): (text: string) => number {
  return (text) => {
    const value = /^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : Number.NaN;
    if (!(value <= most))
      throw new InvalidArgumentError(`Expected a number from 0 to ${most} (0x${most.toString(16)}).`);
    return value;
  };
}
