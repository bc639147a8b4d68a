// A request of the transmission phase, and whether it may be served (proto.md, "Request types", "Error values").
// Before it: transmission.ts.

import {
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_EINVAL,
  NBD_ENOSPC,
  NBD_EOVERFLOW,
  NBD_EPERM,
  NBD_FLAG_READ_ONLY,
  NBD_FLAG_SEND_FLUSH,
  NBD_FLAG_SEND_FUA,
  NBD_FLAG_SEND_TRIM,
  NBD_FLAG_SEND_WRITE_ZEROES,
  NBD_MAX_PAYLOAD,
  NBD_REQUEST_MAGIC,
  type nbdRequest,
} from '../abi/nbd.ts';
import { ProtocolViolation } from '../errors.ts';
import type { ServedExport } from './export.ts';

/** What a client asks for, copied from its message. */
export interface Request {
  readonly flags: number;
  readonly type: number;
  readonly cookieHigh: number;
  readonly cookieLow: number;
  /** Bytes. Inexact above 2^53, where it is past the end of every disk all the same. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
}

/** Why a request fails: an NBD error value and a line for people. */
export interface Refusal {
  readonly error: number;
  readonly message: string;
}

/** Copies a request out of its message. Throws ProtocolViolation when it does not begin like one. */
export function decodeRequest(header: ReturnType<typeof nbdRequest.over>): Request {
  const { magic, flags, type, cookieHigh, cookieLow, offset, length } = header;
  if (magic !== NBD_REQUEST_MAGIC)
    throw new ProtocolViolation(
      'NBD "Request message"',
      `magic 0x${magic.toString(16)}, expected 0x${NBD_REQUEST_MAGIC.toString(16)}`,
    );
  return { flags, type, cookieHigh, cookieLow, offset, length };
}

/** The transmission flag without which a command may not be sent; 0 when it always may. */
const OFFERED_BY: ReadonlyMap<number, number> = new Map([
  [NBD_CMD_READ, 0],
  [NBD_CMD_WRITE, 0],
  [NBD_CMD_FLUSH, NBD_FLAG_SEND_FLUSH],
  [NBD_CMD_TRIM, NBD_FLAG_SEND_TRIM],
  [NBD_CMD_WRITE_ZEROES, NBD_FLAG_SEND_WRITE_ZEROES],
]);

/** Why `request` must not be served, or undefined. `structured`: the client understands structured replies. */
export function refusalOf(
  request: Request,
  target: Pick<ServedExport, 'size' | 'flags'>,
  structured: boolean,
): Refusal | undefined {
  const { type, flags, length } = request;
  if (target.flags & NBD_FLAG_READ_ONLY && changesData(type))
    return { error: NBD_EPERM, message: 'the export is read-only' };
  const offeredBy = OFFERED_BY.get(type);
  if (offeredBy === undefined || (target.flags & offeredBy) !== offeredBy)
    return { error: NBD_EINVAL, message: `command ${type} is not offered` };
  const unknown = flags & ~allowedFlags(type, target.flags);
  if (unknown)
    return { error: NBD_EINVAL, message: `command ${type}: flags 0x${unknown.toString(16)} not offered` };
  const tooLong = (type === NBD_CMD_READ || type === NBD_CMD_WRITE) && length > NBD_MAX_PAYLOAD;
  if (tooLong)
    return {
      error: type === NBD_CMD_READ && structured ? NBD_EOVERFLOW : NBD_EINVAL,
      message: `${length} bytes in one request, expected at most ${NBD_MAX_PAYLOAD}`,
    };
  return type === NBD_CMD_FLUSH ? flushRefusal(request) : rangeRefusal(request, target.size);
}

/** Whether a command may change the disk, so that FUA says something about it. */
export function changesData(type: number): boolean {
  return type === NBD_CMD_WRITE || type === NBD_CMD_TRIM || type === NBD_CMD_WRITE_ZEROES;
}

/** Where FUA is offered it must be accepted with every command. FAST_ZERO is never offered. */
function allowedFlags(type: number, transmissionFlags: number): number {
  const fua = transmissionFlags & NBD_FLAG_SEND_FUA ? NBD_CMD_FLAG_FUA : 0;
  return type === NBD_CMD_WRITE_ZEROES ? fua | NBD_CMD_FLAG_NO_HOLE : fua;
}

function flushRefusal({ offset, length }: Request): Refusal | undefined {
  if (offset === 0 && length === 0) return undefined;
  return { error: NBD_EINVAL, message: `flush of ${length} bytes at ${offset}, expected 0 at 0` };
}

function rangeRefusal({ type, offset, length }: Request, size: number): Refusal | undefined {
  if (offset + length <= size) return undefined;
  const writes = type === NBD_CMD_WRITE || type === NBD_CMD_WRITE_ZEROES;
  return {
    error: writes ? NBD_ENOSPC : NBD_EINVAL,
    message: `${length} bytes at ${offset}: past the end of the export at ${size}`,
  };
}
