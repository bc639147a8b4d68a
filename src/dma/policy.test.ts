// The rules of the decision, one by one, and then what must hold for all guests, policies and findings at once.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DOMID_FIRST_RESERVED } from '../abi/xen.ts';
import { domainId } from '../xen/ids.ts';
import {
  BACKEND_SOURCES,
  type Decision,
  decideAccess,
  type Finding,
  type Findings,
  GRANT_POLICIES,
  type GrantPolicy,
  type GuestFacts,
} from './policy.ts';

const GUEST: GuestFacts = {
  id: domainId(2),
  kind: 'pvh',
  architecture: 'arm',
  encryptedMemory: false,
  initialDomain: false,
  policy: 'require',
  domainZeroByDefault: false,
};
const names = (domain: number): Finding => ({ kind: 'backend', domain, says: `names domain ${domain}` });
const denies: Finding = { kind: 'no grants', says: 'has no iommus' };
const silent: Finding = { kind: 'nothing', says: 'does not know the device' };
const broken: Finding = { kind: 'fault', says: 'is malformed' };

function decide(findings: Findings, guest: Partial<GuestFacts> = {}, own?: GrantPolicy): Decision {
  return decideAccess({ ...GUEST, ...guest }, own, findings);
}

/** What came out, in short. */
function outcome(decision: Decision): string {
  if (decision.access === 'grants') return `grants to ${decision.backend} by ${decision.source}`;
  return decision.access === 'plain' ? 'plain' : `refused: ${decision.reason}`;
}

test('R9: the backend is whoever the most trusted source names, not domain 0', () => {
  assert.equal(
    outcome(decide({ 'device tree': names(5), xenstore: names(5) })),
    'grants to 5 by device tree',
  );
  assert.equal(outcome(decide({ 'device tree': silent, xenstore: names(7) })), 'grants to 7 by xenstore');
  assert.equal(outcome(decide({ 'PCI capability': names(1) })), 'grants to 1 by PCI capability');
});

test('R9: domain 0 serves a device only where it is named, or where the configuration says so', () => {
  assert.equal(outcome(decide({ xenstore: names(0) })), 'grants to 0 by xenstore');
  assert.match(outcome(decide({ xenstore: silent })), /^refused: .*no source says which domain/);
  assert.equal(
    outcome(decide({ xenstore: silent }, { domainZeroByDefault: true })),
    'grants to 0 by domain 0 by default',
  );
  assert.equal(outcome(decide({ xenstore: silent }, { domainZeroByDefault: true }, 'prefer')), 'plain');
});

test('R11: a guest may have trusted and untrusted backends: each device has a policy of its own', () => {
  const outcomes = GRANT_POLICIES.map((own) => outcome(decide({ xenstore: names(3) }, {}, own)));
  assert.deepEqual(outcomes, ['grants to 3 by xenstore', 'grants to 3 by xenstore', 'plain']);
  assert.equal(decide({ xenstore: names(3) }, { policy: 'forbid' }).access, 'plain');
  assert.equal(decide({ xenstore: names(3) }, { policy: 'forbid' }, 'require').access, 'grants');
});

for (const mandatory of [{ kind: 'pv', architecture: 'x86' }, { encryptedMemory: true }] as const)
  test(`R11: a guest with ${JSON.stringify(mandatory)} uses grants whatever the policy`, () => {
    assert.equal(outcome(decide({ xenstore: names(1) }, mandatory, 'prefer')), 'grants to 1 by xenstore');
    assert.match(outcome(decide({ xenstore: silent }, mandatory, 'prefer')), /^refused: grants are required/);
    assert.match(outcome(decide({ xenstore: denies }, mandatory, 'prefer')), /^refused: grants are required/);
    assert.match(
      outcome(decide({}, mandatory, 'forbid')),
      /^refused: the policy forbids grants, and the guest needs/,
    );
  });

test('L3: a source that is malformed refuses the device, and no weaker source is asked in its place', () => {
  for (const source of BACKEND_SOURCES)
    for (const policy of ['require', 'prefer'] as const) {
      const others = Object.fromEntries(BACKEND_SOURCES.map((each) => [each, names(1)]));
      const decision = decide({ ...others, [source]: broken }, { domainZeroByDefault: true }, policy);
      assert.equal(
        outcome(decision),
        `refused: ${source === 'xenstore' ? '' : 'the '}${source} cannot be trusted: is malformed`,
      );
    }
});

test('L4: a device that its source gives without grants is refused where grants are required', () => {
  for (const domainZeroByDefault of [false, true])
    assert.match(
      outcome(decide({ 'device tree': denies, xenstore: silent }, { domainZeroByDefault })),
      /^refused: grants are required, and the device tree gives the device without: has no iommus$/,
    );
  assert.equal(outcome(decide({ 'device tree': denies }, {}, 'prefer')), 'plain');
});

test('L6 G24: ids that are reserved, too large or no numbers name nobody', () => {
  for (const domain of [DOMID_FIRST_RESERVED, 0x7fff, 0xffff, 0x1_0001, -1, 1.5, Number.NaN])
    for (const source of BACKEND_SOURCES)
      assert.match(outcome(decide({ [source]: names(domain) })), /^refused: .* names domain .*: /);
  assert.equal(decide({ xenstore: names(DOMID_FIRST_RESERVED - 1) }).access, 'grants');
});

test('G24: the guest itself is not the backend of its device, and domain 0 does not grant to itself', () => {
  assert.match(outcome(decide({ xenstore: names(2) })), /the guest itself cannot be the backend/);
  const first = { id: domainId(0), initialDomain: true, domainZeroByDefault: true };
  assert.match(
    outcome(decide({ xenstore: names(0) }, first)),
    /the initial domain would grant its memory to itself/,
  );
  assert.match(
    outcome(decide({}, first)),
    /domain 0 by default: the initial domain would grant its memory to itself/,
  );
  assert.equal(outcome(decide({ xenstore: names(5) }, first)), 'grants to 5 by xenstore');
});

test('G24: sources that disagree refuse the device, and the refusal says which said what', () => {
  assert.equal(
    outcome(decide({ 'device tree': names(1), xenstore: silent, configuration: names(3) })),
    'refused: the device tree names domain 1, the configuration domain 3',
  );
  assert.equal(
    outcome(decide({ 'device tree': denies, xenstore: names(1) }, {}, 'prefer')),
    'refused: xenstore names domain 1, and the device tree gives the device without grants',
  );
});

test('G5: where the capability may name the backend, a device that leaves it out is not served plainly', () => {
  assert.match(
    outcome(decide({ 'PCI capability': silent }, {}, 'prefer')),
    /^refused: the PCI capability may name/,
  );
  assert.equal(outcome(decide({ xenstore: denies, 'PCI capability': silent }, {}, 'prefer')), 'plain');
});

test('every decision explains itself, one sentence for each thing considered, in order', () => {
  const { steps } = decide({ 'device tree': names(1), xenstore: names(1) }, {}, 'prefer');
  assert.deepEqual(
    steps.map(({ about, says }) => `${about}: ${says}`),
    [
      'guest: domain 2 is a pvh guest on arm: the policy decides',
      'policy: prefer, of this device',
      'device tree: names domain 1',
      'xenstore: names domain 1',
      'domain 0 by default: off; the configuration does not ask for it',
      'decision: grants to domain 1, named by the device tree; a device that does not insist on them is refused',
    ],
  );
});

const SEED = 20221;
const anyDomain = fc.constantFrom(0, 1, 2, 3, 0x7fef, 0x7ff0, 0x7ff4, 0xffff, 0x1_0001, -1, 0.5);
const anyFinding = fc.oneof(anyDomain.map(names), fc.constantFrom(denies, silent, broken, undefined));
const anyFindings = fc
  .tuple(...BACKEND_SOURCES.map(() => anyFinding))
  .map((found): Findings => Object.fromEntries(BACKEND_SOURCES.map((source, at) => [source, found[at]])));
const anyPolicy = fc.constantFrom(...GRANT_POLICIES);
const anyGuest: fc.Arbitrary<GuestFacts> = fc.record({
  id: fc.constantFrom(0, 2).map(domainId),
  kind: fc.constantFrom('pv', 'hvm', 'pvh'),
  architecture: fc.constantFrom('arm', 'x86'),
  encryptedMemory: fc.boolean(),
  initialDomain: fc.boolean(),
  policy: anyPolicy,
  domainZeroByDefault: fc.boolean(),
});

function forAll(check: (guest: GuestFacts, policy: GrantPolicy, findings: Findings) => void): void {
  fc.assert(fc.property(anyGuest, anyPolicy, anyFindings, check), { seed: SEED, numRuns: 20_000 });
}

test('G5 R11: whatever is found, a guest that needs grants is never served plainly', () => {
  forAll((guest, policy, findings) => {
    const { access } = decideAccess(guest, policy, findings);
    if (guest.kind === 'pv' || guest.encryptedMemory || policy === 'require')
      assert.notEqual(access, 'plain');
    if (policy === 'forbid') assert.notEqual(access, 'grants');
  });
});

test('G24 L6: whatever is found, grants go to an ordinary domain that is not the guest, and that nobody contradicts', () => {
  forAll((guest, policy, findings) => {
    const decision = decideAccess(guest, policy, findings);
    if (decision.access !== 'grants') return;
    assert.ok(
      decision.backend >= 0 && decision.backend < DOMID_FIRST_RESERVED && decision.backend !== guest.id,
    );
    for (const finding of Object.values(findings))
      assert.ok(finding === undefined || finding.kind === 'nothing' || 'domain' in finding, finding?.kind);
    for (const finding of Object.values(findings))
      if (finding?.kind === 'backend') assert.equal(finding.domain, decision.backend);
  });
});

test('L3: whatever is found, one fault refuses the device unless nobody was to be asked', () => {
  forAll((guest, policy, findings) => {
    if (policy === 'forbid' || !Object.values(findings).some((finding) => finding?.kind === 'fault')) return;
    assert.equal(decideAccess(guest, policy, findings).access, 'refused');
  });
});

test('G5 G24: what the device itself says neither opens the memory nor turns grants to another domain', () => {
  fc.assert(
    fc.property(anyGuest, anyPolicy, anyFindings, anyFinding, (guest, policy, findings, lie) => {
      const { 'PCI capability': _, ...trusted } = findings;
      const before = decideAccess(guest, policy, trusted);
      const after = decideAccess(
        guest,
        policy,
        lie === undefined ? trusted : { ...trusted, 'PCI capability': lie },
      );
      if (after.access === 'plain') assert.equal(before.access, 'plain');
      if (before.access === 'grants' && before.source !== 'domain 0 by default' && after.access === 'grants')
        assert.equal(after.backend, before.backend);
    }),
    { seed: SEED, numRuns: 20_000 },
  );
});
