// The fixed newstyle handshake: the client asks for options until it has chosen an export (proto.md,
// "Fixed newstyle negotiation", "Option types"). Before it: connection.ts. After it: transmission.ts.

import {
  NBD_FLAG_FIXED_NEWSTYLE,
  NBD_FLAG_NO_ZEROES,
  NBD_INFO_BLOCK_SIZE,
  NBD_INFO_DESCRIPTION,
  NBD_INFO_EXPORT,
  NBD_INFO_NAME,
  NBD_INIT_MAGIC,
  NBD_MAX_PAYLOAD,
  NBD_MAX_STRING,
  NBD_OPT_ABORT,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_GO,
  NBD_OPT_INFO,
  NBD_OPT_LIST,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_OPTION_MAGIC,
  NBD_OPTION_REPLY_MAGIC,
  NBD_REP_ACK,
  NBD_REP_ERR_INVALID,
  NBD_REP_ERR_TOO_BIG,
  NBD_REP_ERR_UNKNOWN,
  NBD_REP_ERR_UNSUP,
  NBD_REP_INFO,
  NBD_REP_SERVER,
  nbdBlockSizeInfo,
  nbdClientFlags,
  nbdExportInfo,
  nbdExportNameReply,
  nbdGreeting,
  nbdInfoType,
  nbdNameLength,
  nbdOption,
  nbdOptionReply,
} from '../abi/nbd.ts';
import { ProtocolViolation } from '../errors.ts';
import type { ServedExport, ServedExports } from './export.ts';
import type { Sender } from './sender.ts';
import type { StreamReader } from './stream-reader.ts';
import type { Agreement } from './transmission.ts';

/** Longest option data that are looked at: a name of the protocol's limit and 2,000 information requests. */
const MAX_OPTION_DATA = NBD_MAX_STRING + 4096;
/** Bytes of options that a client may send before it has chosen an export. */
const MAX_HANDSHAKE = 1 << 20;

const CLIENT_FLAGS = NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES;
const NOTHING = new Uint8Array(0);

interface Option {
  readonly option: number;
  readonly length: number;
}

/** What an option leads to: the next option, the transmission phase, or the end of the connection. */
type Next = 'option' | 'end' | Agreement;

/** The server's side of a handshake. */
export class Handshake {
  readonly #reader: StreamReader;
  readonly #sender: Sender;
  readonly #exports: ServedExports;
  #structured = false;
  #noZeroes = false;

  constructor(reader: StreamReader, sender: Sender, exports: ServedExports) {
    this.#reader = reader;
    this.#sender = sender;
    this.#exports = exports;
  }

  /**
   * Resolves to what was agreed on, or to undefined when the client left in good order. Rejects with
   * ProtocolViolation when it broke the protocol or wants what can only be refused by hanging up.
   */
  async run(): Promise<Agreement | undefined> {
    await this.#send(
      nbdGreeting.make({
        initMagic: NBD_INIT_MAGIC,
        optionMagic: NBD_OPTION_MAGIC,
        handshakeFlags: NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES,
      }).bytes,
    );
    if (!(await this.#clientFlags())) return undefined;
    const header = nbdOption.make();
    let left = MAX_HANDSHAKE;
    while (await this.#reader.fill(header.bytes)) {
      const { magic, option, length } = header;
      if (magic !== NBD_OPTION_MAGIC) throw violation(`option magic 0x${magic.toString(16)}`);
      left -= header.bytes.length + length;
      if (left < 0) throw violation(`more than ${MAX_HANDSHAKE} bytes of options and no export chosen`);
      const next = await this.#handle({ option, length });
      if (next === 'end') return undefined;
      if (next !== 'option') return next;
    }
    return undefined;
  }

  /** False when the client left at once, as one that only looks whether there is a server. */
  async #clientFlags(): Promise<boolean> {
    const message = nbdClientFlags.make();
    if (!(await this.#reader.fill(message.bytes))) return false;
    const unknown = message.flags & ~CLIENT_FLAGS;
    if (unknown) throw violation(`unknown client flags 0x${(unknown >>> 0).toString(16)}`);
    this.#noZeroes = (message.flags & NBD_FLAG_NO_ZEROES) !== 0;
    return true;
  }

  async #handle(header: Option): Promise<Next> {
    const { option, length } = header;
    if (length > MAX_OPTION_DATA) return this.#tooBig(header);
    const data = new Uint8Array(length);
    if (!(await this.#reader.fill(data))) throw violation(`the stream ended in option ${option}`);
    switch (option) {
      case NBD_OPT_EXPORT_NAME:
        return this.#exportName(data);
      case NBD_OPT_INFO:
      case NBD_OPT_GO:
        return this.#info(option, data);
      case NBD_OPT_ABORT:
        // Not waited for: a client may hang up without reading it.
        void this.#reply(option, NBD_REP_ACK);
        return 'end';
      case NBD_OPT_LIST:
        return length > 0 ? this.#invalid(option, 'expected no data') : this.#list();
      case NBD_OPT_STRUCTURED_REPLY:
        return length > 0 ? this.#invalid(option, 'expected no data') : this.#structuredReply();
      default:
        return this.#error(option, NBD_REP_ERR_UNSUP, `option ${option} is not supported`);
    }
  }

  async #tooBig({ option, length }: Option): Promise<Next> {
    if (option === NBD_OPT_EXPORT_NAME) throw violation(`an export name of ${length} bytes`);
    if (!(await this.#reader.skip(length))) throw violation(`the stream ended in option ${option}`);
    return this.#error(option, NBD_REP_ERR_TOO_BIG, `${length} bytes, expected at most ${MAX_OPTION_DATA}`);
  }

  /** The oldest way to choose: there is no reply that says no. */
  async #exportName(data: Uint8Array): Promise<Next> {
    const target = this.#exports.find(textOf(data));
    if (!target) throw violation(`no export ${quote(textOf(data))}`);
    const reply = nbdExportNameReply.make({ size: target.size, transmissionFlags: target.flags });
    const length = nbdExportNameReply.size - (this.#noZeroes ? reply.zeroes.length : 0);
    await this.#send(reply.bytes.subarray(0, length));
    return { target, structured: this.#structured };
  }

  async #list(): Promise<Next> {
    for (const { name, description } of this.#exports) {
      const length = nbdNameLength.make({ length: Buffer.byteLength(name) }).bytes;
      await this.#reply(
        NBD_OPT_LIST,
        NBD_REP_SERVER,
        Buffer.concat([length, Buffer.from(name + description)]),
      );
    }
    await this.#reply(NBD_OPT_LIST, NBD_REP_ACK);
    return 'option';
  }

  async #structuredReply(): Promise<Next> {
    this.#structured = true;
    await this.#reply(NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK);
    return 'option';
  }

  async #info(option: number, data: Uint8Array): Promise<Next> {
    const wanted = parseInfo(data);
    if (!wanted) return this.#invalid(option, 'name and information requests do not fill the data');
    const target = this.#exports.find(wanted.name);
    if (!target) return this.#error(option, NBD_REP_ERR_UNKNOWN, `no export ${quote(wanted.name)}`);
    for (const info of infosOf(target, wanted.types)) await this.#reply(option, NBD_REP_INFO, info);
    await this.#reply(option, NBD_REP_ACK);
    return option === NBD_OPT_GO ? { target, structured: this.#structured } : 'option';
  }

  #invalid(option: number, message: string): Promise<Next> {
    return this.#error(option, NBD_REP_ERR_INVALID, `option ${option}: ${message}`);
  }

  async #error(option: number, type: number, message: string): Promise<Next> {
    await this.#reply(option, type, Buffer.from(message));
    return 'option';
  }

  #reply(option: number, type: number, data: Uint8Array = NOTHING): Promise<void> {
    const header = nbdOptionReply.make({
      magic: NBD_OPTION_REPLY_MAGIC,
      option,
      type,
      length: data.length,
    });
    return this.#send(Buffer.concat([header.bytes, data]));
  }

  /** Waits until the client took it, so that a client which only asks grows no queue. */
  #send(bytes: Uint8Array): Promise<void> {
    return new Promise((resolve) => {
      this.#sender.send(bytes, undefined, resolve);
    });
  }
}

/** Name and information requests of NBD_OPT_INFO and NBD_OPT_GO; undefined when lengths do not match. */
function parseInfo(data: Uint8Array): { name: string; types: Set<number> } | undefined {
  const typesAt = nbdNameLength.size;
  if (data.length < typesAt + nbdInfoType.size) return undefined;
  const nameEnd = typesAt + nbdNameLength.over(data).length;
  if (nameEnd + nbdInfoType.size > data.length) return undefined;
  const item = nbdInfoType.over(data).at(nameEnd);
  const end = nameEnd + nbdInfoType.size * (1 + item.value);
  if (end !== data.length) return undefined;
  const types = new Set<number>();
  for (let at = nameEnd + nbdInfoType.size; at < end; at += nbdInfoType.size) types.add(item.at(at).value);
  return { name: textOf(data.subarray(typesAt, nameEnd)), types };
}

/** The information about an export that was asked for; its size and flags in any case. */
function infosOf({ name, description, size, flags }: ServedExport, types: Set<number>): Uint8Array[] {
  const infos = [nbdExportInfo.make({ type: NBD_INFO_EXPORT, size, transmissionFlags: flags }).bytes];
  if (types.has(NBD_INFO_NAME)) infos.push(textInfo(NBD_INFO_NAME, name));
  if (types.has(NBD_INFO_DESCRIPTION) && description !== '')
    infos.push(textInfo(NBD_INFO_DESCRIPTION, description));
  if (types.has(NBD_INFO_BLOCK_SIZE))
    infos.push(
      nbdBlockSizeInfo.make({
        type: NBD_INFO_BLOCK_SIZE,
        minimum: 1,
        preferred: 4096,
        maximumPayload: NBD_MAX_PAYLOAD,
      }).bytes,
    );
  return infos;
}

function textInfo(type: number, text: string): Uint8Array {
  return Buffer.concat([nbdInfoType.make({ value: type }).bytes, Buffer.from(text)]);
}

function textOf(data: Uint8Array): string {
  return Buffer.from(data.buffer, data.byteOffset, data.length).toString('utf8');
}

/** A client's name in a message, at a length fit for reading. */
function quote(name: string): string {
  return JSON.stringify(name.length > 64 ? `${name.slice(0, 64)}…` : name);
}

function violation(detail: string): ProtocolViolation {
  return new ProtocolViolation('NBD "Fixed newstyle negotiation"', detail);
}
