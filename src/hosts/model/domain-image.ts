// A suspended domain as bytes: what it was made with, and its memory. Nothing else survives: in the machine where it
// goes on, its grant table is empty, its event channels are closed, and its kernel makes all of them anew.
//
// Layout, little endian: header, the options as JSON, then runs of pages that are not zero, each with a header of its
// own, and last a run of no pages. Every part carries a CRC-32, so that a cut or damaged image is never half a domain.

import { struct } from '../../abi/struct.ts';
import { XEN_PAGE_SIZE } from '../../abi/xen.ts';
import type { DomainOptions } from './domain-options.ts';
import type { DomainRecord } from './domain-record.ts';
import { type Domains, SHUTDOWN_SUSPEND } from './domains.ts';
import { maxEventChannels } from './events/channels.ts';
import type { Machine } from './state.ts';

const MAGIC = 0x4d444f47; // "GODM"
const VERSION = 1;
/** Pages of one run at most: 1 MiB. */
const RUN_PAGES = 256;
/** Longest description of a domain that is read. */
const MOST_OPTIONS = 4096;

const imageHeader = struct('domain image', { magic: 'u32', version: 'u32', options: 'u32', crc: 'u32' });
const runHeader = struct('domain image run', { page: 'u32', pages: 'u32', crc: 'u32' });

/** An image that cannot be used: no image, another version, cut, or damaged. */
export class DomainImageError extends Error {
  constructor(what: string) {
    super(`domain image: ${what}`);
    this.name = 'DomainImageError';
  }
}

/**
 * The image of a domain that has suspended itself, in pieces. The domain stays as it is.
 *
 * @throws RangeError when it has not
 */
export function* saveDomain(machine: Machine, domain: DomainRecord): Generator<Uint8Array> {
  if (domain.shutdownCode !== SHUTDOWN_SUSPEND)
    throw new RangeError(`domain ${domain.id} has not suspended itself: it cannot be saved`);
  const options = new TextEncoder().encode(JSON.stringify(optionsOf(machine, domain)));
  yield imageHeader.make({ magic: MAGIC, version: VERSION, options: options.length, crc: crc32(options) })
    .bytes;
  yield options;
  for (let page = 0; page < domain.ramFrames; ) {
    const pages = runAt(machine, domain, page);
    if (pages === 0) {
      page++;
      continue;
    }
    const start = (domain.ramFrame + page) * XEN_PAGE_SIZE;
    const bytes = machine.memory.u8.slice(start, start + pages * XEN_PAGE_SIZE);
    yield runHeader.make({ page, pages, crc: crc32(bytes) }).bytes;
    yield bytes;
    page += pages;
  }
  yield runHeader.make({ page: domain.ramFrames, pages: 0, crc: 0 }).bytes;
}

/**
 * Makes a domain out of an image, paused, for its kernel to be resumed in.
 *
 * @param id the id that it gets; another machine's, or the same again
 * @param pieces the image, cut anywhere
 * @throws DomainImageError or RangeError, and then there is no domain
 */
export function restoreDomain(
  machine: Machine,
  domains: Domains,
  id: number,
  pieces: Iterable<Uint8Array>,
  destroy: (domain: DomainRecord) => void,
): DomainRecord {
  const reader = new PieceReader(pieces);
  const domain = domains.create(id, readOptions(reader));
  domains.pause(domain);
  try {
    readMemory(machine, domain, reader);
    return domain;
  } catch (error) {
    destroy(domain);
    throw error;
  }
}

function optionsOf(machine: Machine, domain: DomainRecord): Required<DomainOptions> {
  return {
    memory: domain.ramFrames * XEN_PAGE_SIZE,
    kind: domain.kind,
    architecture: domain.architecture,
    vcpus: domain.vcpus,
    maxGrantFrames: domain.maxGrantFrames,
    maxMaptrackFrames: domain.maxMaptrackFrames,
    maxGrantVersion: domain.maxGrantVersion,
    maxEventChannels: maxEventChannels(machine.heap, domain),
    privileged: domain.privileged,
  };
}

/** How many pages from `page` on are not zero, up to a run's length. */
function runAt(machine: Machine, domain: DomainRecord, page: number): number {
  let pages = 0;
  while (pages < RUN_PAGES && page + pages < domain.ramFrames && !isZero(machine, domain, page + pages))
    pages++;
  return pages;
}

function isZero(machine: Machine, domain: DomainRecord, page: number): boolean {
  const first = ((domain.ramFrame + page) * XEN_PAGE_SIZE) / 4;
  const { i32 } = machine.memory;
  for (let word = first; word < first + XEN_PAGE_SIZE / 4; word++) if (i32[word] !== 0) return false;
  return true;
}

function readOptions(reader: PieceReader): DomainOptions {
  const header = imageHeader.over(reader.take(imageHeader.size));
  if (header.magic !== MAGIC) throw new DomainImageError('this is not the image of a domain');
  if (header.version !== VERSION)
    throw new DomainImageError(`version ${header.version}; this program reads version ${VERSION}`);
  if (header.options > MOST_OPTIONS) throw new DomainImageError('its description is too long');
  const bytes = reader.take(header.options);
  if (crc32(bytes) !== header.crc) throw new DomainImageError('its description is damaged');
  return JSON.parse(new TextDecoder().decode(bytes)) as DomainOptions;
}

function readMemory(machine: Machine, domain: DomainRecord, reader: PieceReader): void {
  for (let next = 0; ; ) {
    const { page, pages, crc } = runHeader.over(reader.take(runHeader.size));
    if (pages === 0 && page === domain.ramFrames && crc === 0) return;
    if (page < next || pages === 0 || pages > RUN_PAGES || page + pages > domain.ramFrames)
      throw new DomainImageError(`a run of ${pages} pages at page ${page}: expected one from ${next} on`);
    const bytes = reader.take(pages * XEN_PAGE_SIZE);
    if (crc32(bytes) !== crc) throw new DomainImageError(`the run at page ${page} is damaged`);
    machine.memory.u8.set(bytes, (domain.ramFrame + page) * XEN_PAGE_SIZE);
    next = page + pages;
  }
}

/** Bytes out of pieces that are cut anywhere. */
class PieceReader {
  readonly #pieces: Iterator<Uint8Array>;
  #rest = new Uint8Array(0);

  constructor(pieces: Iterable<Uint8Array>) {
    this.#pieces = pieces[Symbol.iterator]();
  }

  /** The next `length` bytes. Throws DomainImageError when there are fewer. */
  take(length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    for (let at = 0; at < length; ) {
      while (this.#rest.length === 0) this.#rest = this.#next();
      const size = Math.min(length - at, this.#rest.length);
      bytes.set(this.#rest.subarray(0, size), at);
      this.#rest = this.#rest.subarray(size);
      at += size;
    }
    return bytes;
  }

  #next(): Uint8Array<ArrayBuffer> {
    const { done, value } = this.#pieces.next();
    if (done === true) throw new DomainImageError('it ends too early');
    return value as Uint8Array<ArrayBuffer>;
  }
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb8_8320 : crc >>> 1;
  return crc;
});

/** CRC-32 as in IEEE 802.3. */
function crc32(bytes: Uint8Array): number {
  let crc = 0xffff_ffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ CRC_TABLE[(crc ^ byte) & 0xff];
  return ~crc >>> 0;
}
