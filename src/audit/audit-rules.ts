// The rules of the exposure audit: what a backend should never have been able to reach, or for so long, and
// what makes a trace say less than the truth. findings.ts finds where they are broken.

import type { Severity } from '../toolstack/finding.ts';

/** One rule. */
export interface AuditRule {
  /** Lower case and hyphens; part of the output formats, so it stays as it is. */
  readonly id: string;
  readonly severity: Severity;
  /** One line: what has to be so. */
  readonly summary: string;
  /** What happens otherwise, and where that is known from. */
  readonly why: string;
  /** What to do about it. */
  readonly help: string;
}

const OTHER_MODE =
  'use an exposure mode that shares no whole pages of the kernel: bounce, persistent or copy';

/** All rules, in the order in which they are listed. */
export const AUDIT_RULES = [
  {
    id: 'unrestricted-reach',
    severity: 'error',
    summary: 'A backend reaches memory through grants only',
    why: 'Without grants a backend may read and overwrite all of the memory that it is given, whatever a request asks for.',
    help: 'require grants for the device: grant_usage=1, or iommus = <&xen_grant_dma DOMID> in the device tree',
  },
  {
    id: 'foreign-writable',
    severity: 'error',
    summary: 'A backend can overwrite nothing but the buffers that its device shares',
    why: 'A grant is a whole page: whatever lies beside the buffer can be read and overwritten too (XSA-403).',
    help: OTHER_MODE,
  },
  {
    id: 'foreign-readable',
    severity: 'error',
    summary: 'A backend can read nothing but the buffers that its device shares',
    why: 'A grant is a whole page: whatever lies beside the buffer can be read too (XSA-403).',
    help: OTHER_MODE,
  },
  {
    id: 'stale-window',
    severity: 'error',
    summary: 'Access to a page ends before the request that needed it is reported complete',
    why: 'Until then the backend can change what the driver has looked at already, and read what the page is used for next.',
    help: 'revoke before the request is reported complete, or declare how long the device may wait with it',
  },
  {
    id: 'stale-beyond-limit',
    severity: 'error',
    summary: 'No page stays granted for longer than its device has declared',
    why: 'Whoever relies on the declared window takes the page for the guest alone, and it is not.',
    help: 'revoke idle pages in time while the device has requests to serve, or declare a longer window',
  },
  {
    id: 'late-write',
    severity: 'error',
    summary: 'No backend writes to a buffer after the driver has taken it back',
    why: 'What the driver checks and what it uses can differ then. Drivers that copy once see the first value only.',
    help: 'look at the backend: it completes requests before it has finished, or is hostile',
  },
  {
    id: 'touch-outside-need',
    severity: 'error',
    summary: 'A backend touches nothing but the buffers that its device shares',
    why: 'The backend itself reports that it read or wrote beside them: it has a defect, or is hostile.',
    help: 'look at the backend: a length or an offset of a request is wrong',
  },
  {
    id: 'leaked-grant',
    severity: 'error',
    summary: 'No grant is left when the run is over',
    why: 'The backend can reach the page for as long as the guest lives, whatever it is used for.',
    help: 'revoke every grant when its device is closed; the stack tells which mapping is never ended',
  },
  {
    id: 'over-permission',
    severity: 'warning',
    summary: 'What a device is to read only is granted for reading only',
    why: 'The backend can change a request, or what is to be written, after the driver has checked it.',
    help: 'map the buffer with the direction DMA_TO_DEVICE, in a page without buffers of other directions',
  },
  {
    id: 'late-read',
    severity: 'warning',
    summary: 'No backend reads a buffer after the driver has taken it back',
    why: 'It reads what the page is used for next. Inside a declared window nothing prevents it.',
    help: 'look at the backend: it completes requests before it has finished, or is hostile',
  },
  {
    id: 'quarantined-page',
    severity: 'warning',
    summary: 'A backend lets go of a page before it reports the request as done',
    why: 'The grant cannot be ended while the page is mapped. Page and reference are of no use until then (XSA-396).',
    help: 'unmap before the request is put into the used ring',
  },
  {
    id: 'refused-map',
    severity: 'warning',
    summary: 'A backend maps only what it was granted',
    why: 'The hypervisor refused a mapping: the backend tries references that nobody gave it, or is late.',
    help: 'look at the backend: an honest one has no reason to try',
  },
  {
    id: 'grant-without-need',
    severity: 'warning',
    summary: 'Every page that is granted holds a buffer that is shared',
    why: 'The page was exposed and no driver had asked for it. Its bytes are not among the foreign bytes.',
    help: 'grant the pages that a buffer lies in, and no more',
  },
  {
    id: 'contradiction',
    severity: 'warning',
    summary: 'Every event of the trace can be true after those before it',
    why: 'The trace has holes, or whoever reported the event a defect: the figures may be too low.',
    help: 'record the trace again; if it is so again, look at what reports the event',
  },
  {
    id: 'incomplete-trace',
    severity: 'warning',
    summary: 'The trace holds everything from the first event to the last',
    why: 'What is not in it has not been audited. Leaks can be seen at the end only.',
    help: 'let the run end by itself, and have room for its trace',
  },
  {
    id: 'stale-declared',
    severity: 'note',
    summary: 'Pages stay granted after their last use, as their device has declared',
    why: 'In this time the backend can still read and write the page, which should be private to the device.',
    help: 'a mode that revokes with each request has no such time: direct, bounce or copy',
  },
  {
    id: 'grant-never-used',
    severity: 'note',
    summary: 'What is granted is used',
    why: 'The page was exposed and no backend mapped it: the exposure was for nothing.',
    help: 'grant later, or fewer pages',
  },
] as const satisfies readonly AuditRule[];

/** The id of a rule. */
export type AuditRuleId = (typeof AUDIT_RULES)[number]['id'];

/** The rule of an id. */
export function auditRule(id: AuditRuleId): AuditRule {
  return AUDIT_RULES.find((rule) => rule.id === id)!;
}
