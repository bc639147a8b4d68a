// Replies of the transmission phase as bytes (proto.md, "Simple reply message", "Structured reply types").
// Before it: transmission.ts. After it: sender.ts.

import {
  NBD_REPLY_FLAG_DONE,
  NBD_REPLY_TYPE_ERROR,
  NBD_REPLY_TYPE_NONE,
  NBD_REPLY_TYPE_OFFSET_DATA,
  NBD_SIMPLE_REPLY_MAGIC,
  NBD_STRUCTURED_REPLY_MAGIC,
  nbdOffsetData,
  nbdReplyChunk,
  nbdReplyError,
  nbdSimpleReply,
} from '../abi/nbd.ts';
import type { Piece } from './byte-disk.ts';
import type { Refusal, Request } from './request.ts';

/** Longest message for people that an error carries, in bytes; the protocol's limit is 4096. */
const MAX_MESSAGE = 512;

/** A simple reply. After an `error` of 0 the data of a read follow. */
export function simpleReply({ cookieHigh, cookieLow }: Request, error: number): Uint8Array {
  const bytes = new Uint8Array(nbdSimpleReply.size);
  const reply = nbdSimpleReply.over(bytes);
  reply.magic = NBD_SIMPLE_REPLY_MAGIC;
  reply.error = error;
  reply.cookieHigh = cookieHigh;
  reply.cookieLow = cookieLow;
  return bytes;
}

/** A chunk that carries the data of `piece`, which follow. */
export function dataChunk(request: Request, piece: Piece, last: boolean): Uint8Array {
  const size = nbdOffsetData.size;
  const bytes = chunk(request, last, NBD_REPLY_TYPE_OFFSET_DATA, size, size + piece.length);
  nbdOffsetData.over(bytes).at(nbdReplyChunk.size).offset = piece.offset;
  return bytes;
}

/** The chunk that says that all data were sent. */
export function endChunk(request: Request): Uint8Array {
  return chunk(request, true, NBD_REPLY_TYPE_NONE, 0, 0);
}

/** The chunk that says that the request failed; the last of its reply. */
export function errorChunk(request: Request, { error, message }: Refusal): Uint8Array {
  const text = new Uint8Array(MAX_MESSAGE);
  const textLength = new TextEncoder().encodeInto(message, text).written;
  const length = nbdReplyError.size + textLength;
  const bytes = chunk(request, true, NBD_REPLY_TYPE_ERROR, length, length);
  Object.assign(nbdReplyError.over(bytes).at(nbdReplyChunk.size), { error, messageLength: textLength });
  bytes.set(text.subarray(0, textLength), nbdReplyChunk.size + nbdReplyError.size);
  return bytes;
}

/** A chunk with room for the `own` bytes of its payload that are sent with the header. */
function chunk(
  { cookieHigh, cookieLow }: Request,
  last: boolean,
  type: number,
  own: number,
  length: number,
): Uint8Array {
  const bytes = new Uint8Array(nbdReplyChunk.size + own);
  const header = nbdReplyChunk.over(bytes);
  header.magic = NBD_STRUCTURED_REPLY_MAGIC;
  header.flags = last ? NBD_REPLY_FLAG_DONE : 0;
  header.type = type;
  header.cookieHigh = cookieHigh;
  header.cookieLow = cookieLow;
  header.length = length;
  return bytes;
}
