// A finding in words: who caused it, whose bytes it is about, and where it can be seen. Used by audit-text.ts,
// audit-json.ts and html/page.ts.

import { VIRTIO_ID_BLOCK } from '../abi/virtio.ts';
import {
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_GET_ID,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_BLK_T_WRITE_ZEROES,
} from '../abi/virtio-blk.ts';
import { quoted } from '../toolstack/finding.ts';
import { type AuditedRun, type AuditReport, deviceOf } from './audit.ts';
import type { Finding, Occurrence } from './findings.ts';
import type { OwnerBytes } from './owners.ts';
import type { TracedDevice, TraceHeader } from './trace-file.ts';
import { bytesText, timeText } from './units.ts';

const BLOCK_REQUESTS: ReadonlyMap<number, string> = new Map([
  [VIRTIO_BLK_T_IN, 'read'],
  [VIRTIO_BLK_T_OUT, 'write'],
  [VIRTIO_BLK_T_FLUSH, 'flush'],
  [VIRTIO_BLK_T_GET_ID, 'get id'],
  [VIRTIO_BLK_T_DISCARD, 'discard'],
  [VIRTIO_BLK_T_WRITE_ZEROES, 'write zeroes'],
]);

/** How to get what a trace without stacks does not have. */
export const NO_STACKS =
  'not recorded; `grantio run --dma-debug --trace FILE` records where mappings were made';

/** A finding in words. */
export interface FindingWords {
  /** The device and its mode: "xvda, direct". */
  readonly subject: string;
  /** How often, how much, for how long. */
  readonly extent: string;
  /** Whose the bytes were; undefined where that is no question. */
  readonly owners: string | undefined;
  /** What the mappings were made for; undefined where nothing is known of one. */
  readonly requests: string | undefined;
  /** The first occurrence and, if it is another one, the worst. */
  readonly examples: readonly string[];
  /** The stack of calls, or how to get it; undefined where there is no mapping that could have one. */
  readonly stack: string | undefined;
}

/** Describes a finding of a run of `report`. */
export function describe({ header }: AuditReport, run: AuditedRun, finding: Finding): FindingWords {
  const { domain, device, requestType, first, worst } = finding;
  const traced = deviceOf(header, domain, device);
  const examples = first === worst ? [first] : [first, worst];
  return {
    subject: subjectOf(header, run, finding),
    extent: extentOf(finding),
    owners: finding.owners.length > 0 ? ownersText(header, domain, finding.owners) : undefined,
    requests:
      requestType === undefined
        ? device === undefined
          ? undefined
          : 'no request that the driver reported'
        : `${requestText(traced, requestType)} requests`,
    examples: examples.map((example) => exampleText(example, run.begunAt, traced)),
    stack: stackOf(run, finding),
  };
}

/** The name of a device for people. A name comes from a file: it may hold anything. */
export function deviceName(
  header: TraceHeader,
  domain: number | undefined,
  device: number | undefined,
): string {
  const name = deviceOf(header, domain, device)?.name;
  return name === undefined ? `device ${device}` : quoted(name).slice(1, -1);
}

function subjectOf(header: TraceHeader, { mode }: AuditedRun, { domain, device }: Finding): string {
  const name = device === undefined ? undefined : deviceName(header, domain, device);
  const owner = name ?? (domain === undefined ? undefined : `domain ${domain}`);
  return [owner, quoted(mode).slice(1, -1)].filter((word) => word !== undefined && word !== '').join(', ');
}

function extentOf({ count, bytes, maxNanoseconds, worst }: Finding): string {
  const parts = [count === 1 ? 'once' : `${count.toLocaleString('en')} times`];
  if (bytes > 0)
    parts.push(`${bytesText(bytes)}${count > 1 ? `, ${bytesText(worst.bytes)} at once at most` : ''}`);
  if (maxNanoseconds > 0) parts.push(`for ${timeText(maxNanoseconds)} at the longest`);
  return parts.join(', ');
}

function ownersText(header: TraceHeader, domain: number | undefined, owners: readonly OwnerBytes[]): string {
  return owners
    .map(({ kind, device, bytes }) => {
      if (kind === 'kernel') return `${bytesText(bytes)} of the kernel's`;
      const what = kind === 'buffer' ? 'in buffers of' : 'in private pages of';
      return `${bytesText(bytes)} ${what} ${deviceName(header, domain, device)}`;
    })
    .join(', ');
}

/** What a request of a type is called. */
export function requestText(traced: TracedDevice | undefined, type: number): string {
  return (traced?.type === VIRTIO_ID_BLOCK && BLOCK_REQUESTS.get(type)) || `type ${type}`;
}

function exampleText(example: Occurrence, begunAt: number, traced: TracedDevice | undefined): string {
  const { sequence, time, backend, ref, frame, bytes, nanoseconds, request, detail } = example;
  const parts = [`event ${sequence}, after ${timeText(Math.max(0, time - begunAt))}`];
  if (ref !== undefined) parts.push(`reference ${ref}`);
  if (frame !== undefined) parts.push(`frame 0x${frame.toString(16)}`);
  if (backend !== undefined) parts.push(`domain ${backend}`);
  if (bytes > 0) parts.push(bytesText(bytes));
  if (nanoseconds > 0) parts.push(timeText(nanoseconds));
  if (detail !== undefined) parts.push(detail);
  if (request !== undefined)
    parts.push(`request ${request.id} (${requestText(traced, request.type)}, ${bytesText(request.bytes)})`);
  return parts.join(', ');
}

function stackOf({ stacks }: AuditedRun, { device, stack }: Finding): string | undefined {
  if (device === undefined) return undefined;
  if (stack === undefined) return NO_STACKS;
  return stacks.get(stack) ?? `number ${stack}, whose text is not in the trace`;
}
