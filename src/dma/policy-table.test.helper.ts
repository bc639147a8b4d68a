// The decision table of docs/policy.md, made by asking the code: scripts/policy-table.mjs writes it there, and
// policy-table.test.ts fails when they differ.

import { domainId } from '../xen/ids.ts';
import { decideAccess, type Finding, type Findings, GRANT_POLICIES, type GuestFacts } from './policy.ts';

const names = (domain: number): Finding => ({ kind: 'backend', domain, says: '' });
const denies: Finding = { kind: 'no grants', says: '' };
const silent: Finding = { kind: 'nothing', says: '' };
const broken: Finding = { kind: 'fault', says: '' };

/** What the sources say, in the words of the table. */
const ROWS: readonly (readonly [title: string, findings: Findings, domainZeroByDefault?: boolean])[] = [
  ['one names domain 5, and none contradicts', { 'device tree': names(5), xenstore: silent }],
  ['one says that the device uses no grants', { 'device tree': denies, xenstore: silent }],
  ['none knows the device', { 'device tree': silent, xenstore: silent }],
  ['none knows it; domain 0 by default', { 'device tree': silent, xenstore: silent }, true],
  ['one says no grants; domain 0 by default', { 'device tree': denies, xenstore: silent }, true],
  ['none knows it; the PCI capability counts', { xenstore: silent, 'PCI capability': silent }],
  ['two name different domains', { 'device tree': names(5), xenstore: names(6) }],
  ['one names domain 5, another says no grants', { 'device tree': denies, xenstore: names(5) }],
  ['one is malformed, or a stranger can change it', { 'device tree': names(5), xenstore: broken }],
  ['one names the guest itself', { xenstore: names(2) }],
  ['one names a reserved id', { xenstore: names(0x7ff0) }],
];

const ORDINARY: GuestFacts = {
  id: domainId(2),
  kind: 'pvh',
  architecture: 'arm',
  encryptedMemory: false,
  initialDomain: false,
  policy: 'require',
  domainZeroByDefault: false,
};

/** The guests for which one answer has to hold, by whether they can do without grants. */
export const GUESTS: readonly (readonly [title: string, guests: readonly GuestFacts[]])[] = [
  ['', [ORDINARY, { ...ORDINARY, architecture: 'x86' }, { ...ORDINARY, architecture: 'x86', kind: 'hvm' }]],
  [
    'PV or encrypted, ',
    [
      { ...ORDINARY, architecture: 'x86', kind: 'pv' },
      { ...ORDINARY, encryptedMemory: true },
      { ...ORDINARY, architecture: 'x86', kind: 'hvm', encryptedMemory: true },
    ],
  ],
];

/** The answers of all `guests`, in short: more than one if they differ. */
function answers(
  guests: readonly GuestFacts[],
  policy: (typeof GRANT_POLICIES)[number],
  findings: Findings,
  domainZeroByDefault: boolean,
): string {
  const found = guests.map((guest) => {
    const decision = decideAccess({ ...guest, domainZeroByDefault }, policy, findings);
    return decision.access === 'grants' ? `grants to ${decision.backend}` : decision.access;
  });
  return [...new Set(found)].join(' or ');
}

/** The table in Markdown. */
export function policyTable(): string {
  const columns = GUESTS.flatMap(([title, guests]) =>
    GRANT_POLICIES.map((policy) => ({ title: `${title}\`${policy}\``, guests, policy })),
  );
  const head = ['what the sources say', ...columns.map(({ title }) => title)];
  const body = ROWS.map(([title, findings, byDefault = false]) => [
    title,
    ...columns.map(({ guests, policy }) => answers(guests, policy, findings, byDefault)),
  ]);
  return [head, head.map(() => '---'), ...body].map((cells) => `| ${cells.join(' | ')} |\n`).join('');
}

/** What stands before and after the table in the document. */
export const TABLE_BEGIN = '<!-- made by scripts/policy-table.mjs -->\n\n';
export const TABLE_END = '\n<!-- end -->\n';
