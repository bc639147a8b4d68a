// How an event is drawn in Perfetto (ui.perfetto.dev), as lines of the Chrome trace event format. A domain
// is a process; grants, needs, mappings, quarantine and requests are async slices from their beginning to
// their end, one for each page; touches, refused maps and private pages are instants.
//
// The first line of an event carries all of it in `args`, which is what trace-reader.ts reads back. Further
// lines only draw: the other pages of a run, the names of processes and tracks.

import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import type { TraceEvent } from './events.ts';

/** Begin and end of an async slice, a mark on one, an instant on a track, and names. */
type Phase = 'b' | 'e' | 'n' | 'i' | 'M';

/** Process ids start at 1, because Perfetto takes process 0 for the idle process. */
const pidOf = (domain: number): number => domain + 1;
/** Instants need a thread to lie on; thread ids are unique over all processes. */
const TRACKS = { touches: 1, pages: 2 } as const;
const tidOf = (domain: number, track = 0): number => pidOf(domain) * 10 + track;

/** Turns events into lines, and remembers what it needs to end what it began. */
export class TraceLines {
  /** Domains that have been named. */
  readonly #named = new Set<number>();
  /** Quarantined references, as slice ids. */
  readonly #quarantined = new Set<string>();
  #text = '';
  /** Microseconds to three places, never in exponential form, which Perfetto does not read. */
  #timestamp = '';
  /** What the next line carries. */
  #carried = '';

  /** The lines of an event, each with a leading comma and a line feed at its end. */
  of(event: TraceEvent): string {
    this.#text = '';
    this.#timestamp = (event.time / 1000).toFixed(3);
    this.#carried = JSON.stringify(event);
    this.#name('domain' in event ? event.domain : event.mapper);
    this.#draw(event);
    return this.#text;
  }

  #draw(event: TraceEvent): void {
    switch (event.kind) {
      case 'grant':
        this.#slices('grant', 'b', event.domain, event.ref, event.count);
        break;
      case 'revoke':
        this.#slices('grant', 'e', event.domain, event.ref, event.count);
        this.#endQuarantine(event.domain, event.ref, event.count);
        break;
      case 'busy':
        this.#beginQuarantine(event.domain, event.ref);
        break;
      case 'need':
        this.#slices('need', 'b', event.domain, event.ref * XEN_PAGE_SIZE + event.offset);
        break;
      case 'needEnd':
        this.#slices('need', 'e', event.domain, event.ref * XEN_PAGE_SIZE + event.offset);
        break;
      case 'map':
        this.#slices('mapping', 'b', event.mapper, event.handle);
        break;
      case 'unmap':
        this.#slices('mapping', 'e', event.mapper, event.handle);
        break;
      case 'requestBegin':
        this.#slices('request', 'b', event.domain, event.id);
        break;
      case 'requestEnd':
        this.#slices('request', 'e', event.domain, event.id);
        break;
      case 'touch':
        this.#instant(event.write ? 'write' : 'read', event.mapper, TRACKS.touches);
        break;
      case 'mapRefused':
        this.#instant('map refused', event.mapper, TRACKS.touches);
        break;
      case 'narrow':
        this.#instant('sub-page grant', event.domain, TRACKS.pages);
        break;
      case 'origin':
        this.#instant('origin', event.domain, TRACKS.pages);
        break;
      case 'staleLimit':
        this.#instant('stale limit', event.domain, TRACKS.pages);
        break;
      case 'reach':
        this.#instant('reach', event.mapper, TRACKS.touches);
        break;
      case 'reachEnd':
        this.#instant('reach end', event.mapper, TRACKS.touches);
        break;
      case 'privatePages':
        this.#instant('private pages', event.domain, TRACKS.pages);
        break;
      case 'privatePagesEnd':
        this.#instant('private pages end', event.domain, TRACKS.pages);
        break;
    }
  }

  #slices(name: string, phase: Phase, domain: number, first: number, count = 1): void {
    // Even an event of no pages has a line to carry it.
    for (let page = 0; page < Math.max(count, 1); page++)
      this.#line(name, phase, domain, tidOf(domain), `"id":"${domain}/${first + page}"`);
  }

  #instant(name: string, domain: number, track: number): void {
    this.#line(name, 'i', domain, tidOf(domain, track), '"s":"t"');
  }

  #beginQuarantine(domain: number, ref: number): void {
    const id = `${domain}/${ref}`;
    this.#slices('quarantine', this.#quarantined.has(id) ? 'n' : 'b', domain, ref);
    this.#quarantined.add(id);
  }

  #endQuarantine(domain: number, ref: number, count: number): void {
    if (this.#quarantined.size === 0) return;
    for (let page = 0; page < count; page++) {
      if (this.#quarantined.delete(`${domain}/${ref + page}`))
        this.#slices('quarantine', 'e', domain, ref + page);
    }
  }

  #name(domain: number): void {
    if (this.#named.has(domain)) return;
    this.#named.add(domain);
    this.#text += nameLine('process_name', domain, tidOf(domain), `domain ${domain}`);
    for (const [track, number] of Object.entries(TRACKS))
      this.#text += nameLine('thread_name', domain, tidOf(domain, number), track);
  }

  #line(name: string, phase: Phase, domain: number, tid: number, more: string): void {
    this.#text +=
      `,{"name":"${name}","cat":"${name}","ph":"${phase}",${more},"ts":${this.#timestamp},` +
      `"pid":${pidOf(domain)},"tid":${tid},"args":${this.#carried}}\n`;
    this.#carried = '{}';
  }
}

function nameLine(what: string, domain: number, tid: number, name: string): string {
  return `,{"name":"${what}","cat":"__metadata","ph":"M","ts":0,"pid":${pidOf(domain)},"tid":${tid},"args":{"name":"${name}"}}\n`;
}
