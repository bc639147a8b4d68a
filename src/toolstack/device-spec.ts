// What the two kinds of device description in a guest configuration share (disk-spec.ts, virtio-spec.ts):
// parts with a place, checked values, and the backend's domain.

import { DOMID_FIRST_RESERVED } from '../abi/xen.ts';
import { type Findings, type Place, quoted } from './finding.ts';
import { didYouMean } from './suggest.ts';
import type { XlAtom } from './xl-cfg-parser.ts';

/** The text of one part of a description, and where it stands. */
export interface Part extends Place {
  readonly text: string;
}

/** The parts of one description by name. */
type Parts<Name extends string> = ReadonlyMap<Name, Part>;

/** Where a description and each part that was written stand. */
export type Places<Name extends string> = { readonly spec: Place } & { readonly [N in Name]?: Place };

/** A domain as a configuration names it: by id or by name. */
export type DomainName = number | string;

/** The places of `parts` and of the whole description. */
export function placesOf<Name extends string>(spec: Place, parts: Parts<Name>): Places<Name> {
  const places = new Map<string, Place>([['spec', { line: spec.line, column: spec.column }]]);
  for (const [name, { line, column }] of parts) places.set(name, { line, column });
  // The names are those of the parts; fromEntries forgets that.
  return Object.fromEntries(places) as Places<Name>;
}

/** Adds a part, unless it was given before and says something else. */
export function addPart<Name extends string>(
  parts: Map<Name, Part>,
  name: Name,
  part: Part,
  findings: Findings,
): void {
  const before = parts.get(name);
  if (before === undefined || before.text === '') parts.set(name, part);
  else if (part.text !== '' && part.text !== before.text)
    findings.error(part, `\`${name}\` is given twice: ${quoted(before.text)} and ${quoted(part.text)}`);
}

/** The value of a part that takes one of a few words; undefined when it is absent or wrong (reported). */
export function choiceOf<Name extends string, Word extends string>(
  parts: Parts<Name>,
  name: Name,
  words: readonly Word[],
  findings: Findings,
): Word | undefined {
  const part = parts.get(name);
  if (part === undefined || part.text === '') return undefined;
  const found = words.find((word) => word === part.text);
  if (found === undefined)
    findings.error(
      part,
      `\`${name}\` cannot be ${quoted(part.text)}`,
      didYouMean(part.text, words) ?? `expected one of ${words.join(', ')}`,
    );
  return found;
}

/** The value of a yes-or-no part, which xl wants as 0 or 1; undefined when it is absent or wrong (reported). */
export function flagOf<Name extends string>(
  parts: Parts<Name>,
  name: Name,
  findings: Findings,
): boolean | undefined {
  const part = parts.get(name);
  if (part === undefined) return undefined;
  if (part.text === '0' || part.text === '1') return part.text === '1';
  const yes = /^(y|yes|on|true|enabled?)$/i.test(part.text);
  findings.error(
    part,
    `\`${name}\` cannot be ${quoted(part.text)}: xl takes any word for 0, or refuses it`,
    `write ${name}=${yes ? 1 : '0 or 1'}`,
  );
  return undefined;
}

/**
 * The backend's domain: an id when it is written in digits, a name otherwise, domain 0 when it is absent.
 * An id that no domain can have is reported.
 */
export function backendOf(part: Part | undefined, findings: Findings): DomainName {
  if (part === undefined || part.text === '') return 0;
  if (!/^[0-9]+$/.test(part.text)) return part.text;
  const id = Number(part.text);
  if (id >= DOMID_FIRST_RESERVED)
    findings.error(part, `no domain has the id ${quoted(part.text)}: ids end at ${DOMID_FIRST_RESERVED - 1}`);
  return id;
}

/** Whether `domain` is domain 0, where the toolstack runs, by id or by its usual name. */
export function isToolstackDomain(domain: DomainName): boolean {
  return domain === 0 || domain === 'Domain-0';
}

/** Characters; a path, the longest part, has at most 4096 bytes. */
const MAX_SPEC = 8192;

/** Whether a description is short enough to be read; reported when it is not. */
export function isReadable(spec: XlAtom, findings: Findings): boolean {
  if (spec.text.length <= MAX_SPEC) return true;
  findings.error(spec, `the description has ${spec.text.length} characters; at most ${MAX_SPEC} are read`);
  return false;
}
