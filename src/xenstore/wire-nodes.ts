// The operations on nodes as requests and replies of the wire protocol, outside or inside a transaction.
// Before client.ts, which carries the messages.

import * as xs from '../abi/xenstore.ts';
import { ProtocolViolation } from '../errors.ts';
import { type NodePermission, XenstoreError, type XenstoreNodes } from '../xen/xenstore.ts';
import { parsePermission } from './permissions.ts';
import { stringsIn, terminated } from './wire.ts';

/** Clause of the ProtocolViolation for a store whose replies are no replies. */
export const REPLY = 'xenstore.txt: replies';

/** Parts that a list of children may come in, of up to 4096 bytes each. */
const PARTS_MAX = 4096;

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

/** Text as a payload carries it. */
export function textBytes(text: string): Uint8Array {
  return encoder.encode(text);
}

/** The port's operations on nodes over some way to ask. */
export abstract class WireNodes implements XenstoreNodes {
  /** Sends a request and resolves with the reply's payload; `path` is for the message of a refusal. */
  protected abstract ask(type: number, path: string, payload: Uint8Array): Promise<Uint8Array>;

  async read(path: string): Promise<string> {
    return decoder.decode(await this.#askFor(xs.XS_READ, path));
  }

  async write(path: string, value: string): Promise<void> {
    await this.ask(xs.XS_WRITE, path, textBytes(`${path}\0${value}`));
  }

  async directory(path: string): Promise<string[]> {
    try {
      return stringsIn(await this.#askFor(xs.XS_DIRECTORY, path)).sort();
    } catch (error) {
      if (!(error instanceof XenstoreError) || error.code !== 'E2BIG') throw error;
      return (await this.#directoryInParts(path)).sort();
    }
  }

  async remove(path: string): Promise<void> {
    await this.#askFor(xs.XS_RM, path);
  }

  async permissions(path: string): Promise<NodePermission[]> {
    return stringsIn(await this.#askFor(xs.XS_GET_PERMS, path)).map((entry) => {
      const parsed = parsePermission(entry);
      if (parsed === undefined)
        throw new ProtocolViolation(REPLY, `xenstore permission "${entry}" of ${path}`);
      return parsed;
    });
  }

  async setPermissions(path: string, permissions: readonly NodePermission[]): Promise<void> {
    const entries = permissions.map(({ domain, access }) => `${access}${domain}`);
    await this.ask(xs.XS_SET_PERMS, path, textBytes(terminated([path, ...entries])));
  }

  /** A request whose only argument is the path. */
  #askFor(type: number, path: string): Promise<Uint8Array> {
    return this.ask(type, path, textBytes(`${path}\0`));
  }

  /** Parts of the list until one ends with an empty name; from the start again if the list has changed. */
  async #directoryInParts(path: string): Promise<string[]> {
    let names: string[] = [];
    let offset = 0;
    let known: string | undefined;
    for (let parts = 0; parts < PARTS_MAX; parts++) {
      const payload = textBytes(terminated([path, `${offset}`]));
      const [generation, ...part] = stringsIn(await this.ask(xs.XS_DIRECTORY_PART, path, payload));
      if (offset > 0 && generation !== known) {
        names = [];
        offset = 0;
        continue;
      }
      known = generation;
      names.push(...part);
      if (part.at(-1) === '') return names.slice(0, -1);
      offset += terminated(part).length;
    }
    throw new ProtocolViolation(
      REPLY,
      `xenstore list of children of ${path}: no end after ${PARTS_MAX} parts`,
    );
  }
}
