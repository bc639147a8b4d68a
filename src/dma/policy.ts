// How a device reaches the guest's memory: through grants and to which domain, plainly, or not at all. One
// function decides for every kind of guest, and says why. It looks at nothing itself: what the sources say is
// found by toolstack/device-tree/device-finding.ts, toolstack/store-finding.ts and toolstack/pci-finding.ts.
// Before machine/device-finder.ts. docs/policy.md has the rules as a table and what each source can be trusted for.
//
// It fails closed: what is malformed, contradictory or missing refuses the device, and never leads on to a
// weaker source or to plain access.

import { DOMID_FIRST_RESERVED } from '../abi/xen.ts';
import { type DomainId, domainId } from '../xen/ids.ts';

/** What is wanted of a device: grants or nothing, grants where a source knows of them, or no grants. */
export const GRANT_POLICIES = ['require', 'prefer', 'forbid'] as const;
export type GrantPolicy = (typeof GRANT_POLICIES)[number];

/** What a guest knows of itself. */
export interface GuestFacts {
  readonly id: DomainId;
  readonly kind: 'pv' | 'hvm' | 'pvh';
  readonly architecture: 'arm' | 'x86';
  /** Whether nobody else can read its memory unless it is shared. */
  readonly encryptedMemory: boolean;
  /** Whether it is the domain that was started with the hypervisor. */
  readonly initialDomain: boolean;
  /** For devices without a policy of their own; chosen when the guest starts. */
  readonly policy: GrantPolicy;
  /** Whether its configuration says that domain 0 serves devices of which no source says who does. */
  readonly domainZeroByDefault: boolean;
}

/** Who can say which domain serves a device, the most trusted first. */
export const BACKEND_SOURCES = ['device tree', 'xenstore', 'configuration', 'PCI capability'] as const;
export type BackendSource = (typeof BACKEND_SOURCES)[number];

/** What a source says of one device. `says` is the end of a sentence that begins with the source. */
export type Finding =
  /** It names the domain; the id is not checked yet. */
  | { readonly kind: 'backend'; readonly domain: number; readonly says: string }
  /** It knows the device and that it uses no grants. */
  | { readonly kind: 'no grants'; readonly says: string }
  /** It does not know. */
  | { readonly kind: 'nothing'; readonly says: string }
  /** It is wrong in itself, or somebody could have changed it who must not. */
  | { readonly kind: 'fault'; readonly says: string };

/** What the sources say; one that is absent was not asked. */
export type Findings = { readonly [S in BackendSource]?: Finding };

/** One thing that was considered, as a sentence. */
export interface Step {
  readonly about: 'guest' | 'policy' | BackendSource | 'domain 0 by default' | 'decision';
  readonly says: string;
}

type Outcome =
  | {
      readonly access: 'grants';
      readonly backend: DomainId;
      readonly source: BackendSource | 'domain 0 by default';
    }
  | { readonly access: 'plain' }
  | { readonly access: 'refused'; readonly reason: string };

/** What was decided for one device, and everything that led to it, in order. */
export type Decision = Outcome & { readonly policy: GrantPolicy; readonly steps: readonly Step[] };

/**
 * Decides for one device.
 *
 * @param own the device's own policy; undefined leaves it to the guest's
 */
export function decideAccess(guest: GuestFacts, own: GrantPolicy | undefined, findings: Findings): Decision {
  const policy = own ?? guest.policy;
  const mandate = mandateOf(guest);
  const outcome = outcomeOf(guest, policy, mandate, findings);
  const steps: Step[] = [
    { about: 'guest', says: describeGuest(guest, mandate) },
    {
      about: 'policy',
      says: `${policy}, ${own === undefined ? "the guest's for all devices" : 'of this device'}`,
    },
    ...BACKEND_SOURCES.flatMap((source) => {
      const finding = findings[source];
      return finding === undefined ? [] : [{ about: source, says: finding.says }];
    }),
    { about: 'domain 0 by default', says: describeDefault(guest) },
    { about: 'decision', says: describeOutcome(outcome) },
  ];
  return { ...outcome, policy, steps };
}

/** Why the guest cannot do without grants; undefined if it can. */
function mandateOf({ kind, encryptedMemory }: GuestFacts): string | undefined {
  if (kind === 'pv') return "a PV guest's addresses mean nothing to its backend";
  return encryptedMemory ? 'nobody can read encrypted memory that is not shared' : undefined;
}

function outcomeOf(
  guest: GuestFacts,
  policy: GrantPolicy,
  mandate: string | undefined,
  findings: Findings,
): Outcome {
  if (policy === 'forbid')
    return mandate === undefined
      ? { access: 'plain' }
      : refused(`the policy forbids grants, and the guest needs them: ${mandate}`);
  const fault = faultIn(guest, findings);
  if (fault !== undefined) return refused(fault);
  const named = sourcesWith('backend', findings)[0];
  if (named !== undefined) {
    const [source, { domain }] = named;
    return { access: 'grants', backend: domainId(domain), source };
  }
  const required = mandate !== undefined || policy === 'require';
  return required ? withoutBackend(guest, findings) : preferred(findings);
}

/** Grants are required and nobody has named a backend. */
function withoutBackend(guest: GuestFacts, findings: Findings): Outcome {
  const denial = sourcesWith('no grants', findings)[0];
  if (denial !== undefined)
    return refused(`grants are required, and ${the(denial[0])} gives the device without: ${denial[1].says}`);
  if (!guest.domainZeroByDefault)
    return refused('grants are required, and no source says which domain serves the device');
  const fault = idFault(guest, 0);
  if (fault !== undefined) return refused(`domain 0 by default: ${fault}`);
  return { access: 'grants', backend: domainId(0), source: 'domain 0 by default' };
}

/** Grants are preferred and nobody has named a backend. */
function preferred(findings: Findings): Outcome {
  const denied = sourcesWith('no grants', findings).length > 0;
  // The capability is the device's own word: where it counts, leaving it out must not open the memory.
  if (!denied && findings['PCI capability'] !== undefined)
    return refused('the PCI capability may name the backend, and the device does not have it');
  return { access: 'plain' };
}

/** What makes the findings unusable, whatever the policy; undefined if nothing does. */
function faultIn(guest: GuestFacts, findings: Findings): string | undefined {
  const wrong = sourcesWith('fault', findings)[0];
  if (wrong !== undefined) return `${the(wrong[0])} cannot be trusted: ${wrong[1].says}`;
  const named = sourcesWith('backend', findings);
  for (const [source, { domain }] of named) {
    const fault = idFault(guest, domain);
    if (fault !== undefined) return `${the(source)} names domain ${domain}: ${fault}`;
  }
  const [first, ...others] = named;
  if (first === undefined) return undefined;
  const contrary = others.find(([, { domain }]) => domain !== first[1].domain);
  if (contrary !== undefined)
    return `${the(first[0])} names domain ${first[1].domain}, ${the(contrary[0])} domain ${contrary[1].domain}`;
  const denial = sourcesWith('no grants', findings)[0];
  if (denial === undefined) return undefined;
  return `${the(first[0])} names domain ${first[1].domain}, and ${the(denial[0])} gives the device without grants`;
}

/** Why nothing may be granted to a domain with this id; undefined if it may. */
function idFault(guest: GuestFacts, domain: number): string | undefined {
  if (!Number.isInteger(domain) || domain < 0 || domain > 0xffff)
    return 'a domain id is a whole number of 16 bits';
  if (domain >= DOMID_FIRST_RESERVED)
    return `ids from 0x${DOMID_FIRST_RESERVED.toString(16)} on name no ordinary domain`;
  if (domain !== guest.id) return undefined;
  return guest.initialDomain
    ? 'the initial domain would grant its memory to itself'
    : 'the guest itself cannot be the backend of its device';
}

type FindingOf<K extends Finding['kind']> = Extract<Finding, { readonly kind: K }>;

/** The sources whose finding is of `kind`, the most trusted first. */
function sourcesWith<K extends Finding['kind']>(
  kind: K,
  findings: Findings,
): (readonly [BackendSource, FindingOf<K>])[] {
  const isOfKind = (finding: Finding | undefined): finding is FindingOf<K> => finding?.kind === kind;
  return BACKEND_SOURCES.flatMap((source) => {
    const finding = findings[source];
    return isOfKind(finding) ? [[source, finding] as const] : [];
  });
}

/** A source in the middle of a sentence; xenstore and domain 0 are names. */
function the(source: Step['about']): string {
  return source === 'xenstore' || source === 'domain 0 by default' ? source : `the ${source}`;
}

function refused(reason: string): Outcome {
  return { access: 'refused', reason };
}

function describeGuest(guest: GuestFacts, mandate: string | undefined): string {
  const { id, kind, architecture, encryptedMemory, initialDomain } = guest;
  const who = `domain ${id}${initialDomain ? ', the initial domain,' : ''} is a ${kind} guest on ${architecture}`;
  const memory = encryptedMemory ? ' with encrypted memory' : '';
  return `${who}${memory}: ${mandate === undefined ? 'the policy decides' : `it needs grants, because ${mandate}`}`;
}

function describeDefault({ domainZeroByDefault }: GuestFacts): string {
  return domainZeroByDefault
    ? 'on; stands in where grants are required and no source says who serves the device'
    : 'off; the configuration does not ask for it';
}

function describeOutcome(outcome: Outcome): string {
  if (outcome.access === 'refused') return `refused: ${outcome.reason}`;
  if (outcome.access === 'plain') return "plain: the backend may reach all of the guest's memory";
  return `grants to domain ${outcome.backend}, named by ${the(outcome.source)}; a device that does not insist on them is refused`;
}
