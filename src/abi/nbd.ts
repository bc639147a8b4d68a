// The NBD protocol: records and constants of the fixed newstyle handshake and of the transmission phase
// (NetworkBlockDevice/nbd, doc/proto.md). Everything is big endian.
// A cookie is opaque, and copied as two halves.

import { struct } from './struct.ts';

/** "NBDMAGIC". */
export const NBD_INIT_MAGIC = 0x4e42444d41474943n;
/** "IHAVEOPT": the newstyle handshake, and the start of each option. */
export const NBD_OPTION_MAGIC = 0x49484156454f5054n;
export const NBD_OPTION_REPLY_MAGIC = 0x0003e889045565a9n;
export const NBD_REQUEST_MAGIC = 0x25609513;
export const NBD_SIMPLE_REPLY_MAGIC = 0x67446698;
export const NBD_STRUCTURED_REPLY_MAGIC = 0x668e33ef;

// Handshake flags; the client answers with the same bits as NBD_FLAG_C_*.
export const NBD_FLAG_FIXED_NEWSTYLE = 1 << 0;
export const NBD_FLAG_NO_ZEROES = 1 << 1;

// Transmission flags.
export const NBD_FLAG_HAS_FLAGS = 1 << 0;
export const NBD_FLAG_READ_ONLY = 1 << 1;
export const NBD_FLAG_SEND_FLUSH = 1 << 2;
export const NBD_FLAG_SEND_FUA = 1 << 3;
export const NBD_FLAG_SEND_TRIM = 1 << 5;
export const NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6;
export const NBD_FLAG_CAN_MULTI_CONN = 1 << 8;

export const NBD_OPT_EXPORT_NAME = 1;
export const NBD_OPT_ABORT = 2;
export const NBD_OPT_LIST = 3;
export const NBD_OPT_STARTTLS = 5;
export const NBD_OPT_INFO = 6;
export const NBD_OPT_GO = 7;
export const NBD_OPT_STRUCTURED_REPLY = 8;

export const NBD_REP_ACK = 1;
export const NBD_REP_SERVER = 2;
export const NBD_REP_INFO = 3;
export const NBD_REP_ERR_UNSUP = 0x8000_0001;
export const NBD_REP_ERR_INVALID = 0x8000_0003;
export const NBD_REP_ERR_UNKNOWN = 0x8000_0006;
export const NBD_REP_ERR_TOO_BIG = 0x8000_0009;

export const NBD_INFO_EXPORT = 0;
export const NBD_INFO_NAME = 1;
export const NBD_INFO_DESCRIPTION = 2;
export const NBD_INFO_BLOCK_SIZE = 3;

export const NBD_CMD_READ = 0;
export const NBD_CMD_WRITE = 1;
export const NBD_CMD_DISC = 2;
export const NBD_CMD_FLUSH = 3;
export const NBD_CMD_TRIM = 4;
export const NBD_CMD_WRITE_ZEROES = 6;

export const NBD_CMD_FLAG_FUA = 1 << 0;
export const NBD_CMD_FLAG_NO_HOLE = 1 << 1;

/** Structured replies: the last chunk of its reply. */
export const NBD_REPLY_FLAG_DONE = 1 << 0;
export const NBD_REPLY_TYPE_NONE = 0;
export const NBD_REPLY_TYPE_OFFSET_DATA = 1;
export const NBD_REPLY_TYPE_ERROR = 0x8001;

export const NBD_EPERM = 1;
export const NBD_EIO = 5;
export const NBD_ENOMEM = 12;
export const NBD_EINVAL = 22;
export const NBD_ENOSPC = 28;
export const NBD_EOVERFLOW = 75;
export const NBD_ENOTSUP = 95;
export const NBD_ESHUTDOWN = 108;

/** Longest string of the protocol (names, descriptions, messages), in bytes. */
export const NBD_MAX_STRING = 4096;
/** Longest payload that every client may send or ask for when no other limit was agreed on: 32 MiB. */
export const NBD_MAX_PAYLOAD = 1 << 25;

/** First message of the server. */
export const nbdGreeting = struct(
  'nbd_greeting',
  { initMagic: 'bits64', optionMagic: 'bits64', handshakeFlags: 'u16' },
  'big',
);

/** The client's answer to the greeting. */
export const nbdClientFlags = struct('nbd_client_flags', { flags: 'u32' }, 'big');

/** An option; `length` bytes of data follow. */
export const nbdOption = struct('nbd_option', { magic: 'bits64', option: 'u32', length: 'u32' }, 'big');

/** A reply to an option; `length` bytes of data follow. */
export const nbdOptionReply = struct(
  'nbd_option_reply',
  { magic: 'bits64', option: 'u32', type: 'u32', length: 'u32' },
  'big',
);

/** The answer to NBD_OPT_EXPORT_NAME; the zeroes are left out when both sides set NO_ZEROES. */
export const nbdExportNameReply = struct(
  'nbd_export_name_reply',
  { size: 'u64', transmissionFlags: 'u16', zeroes: { bytes: 124 } },
  'big',
);

/** A length before a name: in NBD_OPT_INFO, NBD_OPT_GO and NBD_REP_SERVER. */
export const nbdNameLength = struct('nbd_name_length', { length: 'u32' }, 'big');

/** The count, and each item, of the information requests in NBD_OPT_INFO and NBD_OPT_GO; NBD_REP_INFO's type. */
export const nbdInfoType = struct('nbd_info_type', { value: 'u16' }, 'big');

/** Data of an NBD_REP_INFO about NBD_INFO_EXPORT. */
export const nbdExportInfo = struct(
  'nbd_info_export',
  { type: 'u16', size: 'u64', transmissionFlags: 'u16' },
  'big',
);

/** Data of an NBD_REP_INFO about NBD_INFO_BLOCK_SIZE, in bytes. */
export const nbdBlockSizeInfo = struct(
  'nbd_info_block_size',
  { type: 'u16', minimum: 'u32', preferred: 'u32', maximumPayload: 'u32' },
  'big',
);

/** A request; a write's `length` bytes follow. */
export const nbdRequest = struct(
  'nbd_request',
  { magic: 'u32', flags: 'u16', type: 'u16', cookie: 'addr64', offset: 'u64', length: 'u32' },
  'big',
);

/** A simple reply; the bytes of a successful read follow. */
export const nbdSimpleReply = struct(
  'nbd_simple_reply',
  { magic: 'u32', error: 'u32', cookie: 'addr64' },
  'big',
);

/** A chunk of a structured reply; `length` bytes of payload follow. */
export const nbdReplyChunk = struct(
  'nbd_structured_reply_chunk',
  { magic: 'u32', flags: 'u16', type: 'u16', cookie: 'addr64', length: 'u32' },
  'big',
);

/** Start of the payload of NBD_REPLY_TYPE_OFFSET_DATA; the data follow. */
export const nbdOffsetData = struct('nbd_offset_data', { offset: 'u64' }, 'big');

/** Start of the payload of NBD_REPLY_TYPE_ERROR; the message follows. */
export const nbdReplyError = struct('nbd_reply_error', { error: 'u32', messageLength: 'u16' }, 'big');
