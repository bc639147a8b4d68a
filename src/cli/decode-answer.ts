// One address as somebody writes it, and what it stands for, in words and as JSON. After decode.ts.

import { ADDRESS_MAX, decodeGrant } from '../abi/grant-range.ts';
import {
  GRANT_DEFAULT_MAX_FRAMES,
  GRANT_ENTRIES_PER_FRAME_V1,
  GRANT_RESERVED_ENTRIES,
} from '../abi/grant.ts';
import { UsageError } from './usage.ts';

/** What an address stands for; printed as it is with --json. */
export type Answer = {
  /** As it was written. */
  readonly input: string;
  /** With 16 digits. */
  readonly address: string;
} & (
  | {
      readonly grant: true;
      readonly reference: number;
      readonly offset: number;
      /** Bytes, where a length was given; the pages that they touch, and the last one's reference. */
      readonly length?: number;
      readonly pages?: number;
      readonly lastReference?: number;
    }
  | { readonly grant: false; readonly fault: string; readonly reason: string }
);

/** ADDRESS or ADDRESS+LENGTH. Digits of hexadecimal numbers may be in groups: 0x80000000_00044aa8. */
const WRITTEN = /^(0x[0-9a-f]+(?:_[0-9a-f]+)*|[0-9a-f]+)(?:\+(0x[0-9a-f]+|\d+))?$/i;

/** An address that has been read: the number, and the length that was given with it, in bytes. */
interface Written {
  readonly address: bigint;
  readonly length: number | undefined;
}

/** What `input` stands for. Throws UsageError if it is no address at all. */
export function answerFor(input: string): Answer {
  const written = parseAddress(input);
  if (typeof written === 'string') throw new UsageError(written);
  return answerOf(input, written);
}

/** Reads an address; returns what is wrong with it, in a sentence, if it is none. */
export function parseAddress(input: string): Written | string {
  const [, number, length] = WRITTEN.exec(input) ?? [];
  if (number === undefined)
    return `${JSON.stringify(input)} is no address: expected one such as 0x8000000000044aa8 or 0x8000000000044aa8+0x3a0`;
  const digits = number.toLowerCase().replaceAll('_', '');
  const doubt = doubtAbout(digits);
  if (doubt !== undefined) return doubt;
  const address = BigInt(/^[^x]*[a-f]/.test(digits) ? `0x${digits}` : digits);
  if (address > ADDRESS_MAX) return `${number} is no address: it has more than 64 bits`;
  return { address, length: length === undefined ? undefined : Number(length) };
}

/** Without 0x, a number is hexadecimal only if nothing else is possible, and written in full as logs do. */
function doubtAbout(digits: string): string | undefined {
  if (digits.startsWith('0x')) return undefined;
  const hasLetters = /[a-f]/.test(digits);
  if (hasLetters === (digits.length === 16)) return undefined;
  return hasLetters
    ? `${digits} is no decimal number: write 0x${digits} if it is hexadecimal`
    : `${digits} may be decimal or hexadecimal: write 0x${digits} if it is the latter`;
}

/** What an address stands for; `input` is how it was written. */
export function answerOf(input: string, { address, length }: Written): Answer {
  const range = decodeGrant(address, length);
  const written = { input, address: `0x${address.toString(16).padStart(16, '0')}` };
  if ('fault' in range) return { ...written, grant: false, ...range };
  const { reference, offset, pages, lastReference } = range;
  const place = { ...written, grant: true as const, reference, offset };
  return length === undefined ? place : { ...place, length, pages, lastReference };
}

/** What it stands for, for people: "grant 68 (0x44), offset 0xaa8". */
export function answerText(answer: Answer): string {
  if (!answer.grant) return `not a grant address: ${answer.reason}`;
  const { reference, offset, length, pages = 1, lastReference = reference } = answer;
  const parts = [
    pages === 1
      ? `grant ${reference} (${hex(reference)})`
      : `grants ${reference}-${lastReference} (${hex(reference)}-${hex(lastReference)})`,
    `offset ${hex(offset)}`,
  ];
  if (length !== undefined) parts.push(`${count(length, 'byte')} in ${count(pages, 'page')}`);
  return `${parts.join(', ')}${notes(reference, lastReference)}`;
}

/** What is unusual about a reference, and is often the reason why somebody looks at it. */
function notes(first: number, last: number): string {
  if (first < GRANT_RESERVED_ENTRIES)
    return `; references below ${GRANT_RESERVED_ENTRIES} are reserved (0 console, 1 xenstore)`;
  const frames = Math.floor(last / GRANT_ENTRIES_PER_FRAME_V1) + 1;
  if (frames > GRANT_DEFAULT_MAX_FRAMES)
    return `; needs a grant table of ${frames} frames, ${GRANT_DEFAULT_MAX_FRAMES} are Xen's default`;
  return '';
}

const hex = (value: number): string => `0x${value.toString(16)}`;
const count = (number: number, word: string): string => `${number} ${word}${number === 1 ? '' : 's'}`;
