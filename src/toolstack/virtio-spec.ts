// One element of `virtio = [ … ]` in a guest configuration: "backend=DOM,type=virtio,device22,transport=mmio".
// The value of `type` has a comma of its own, so the description cannot simply be split at commas.

import {
  addPart,
  backendOf,
  type DomainName,
  flagOf,
  isReadable,
  isToolstackDomain,
  type Part,
  type Places,
  placesOf,
} from './device-spec.ts';
import { type Findings, quoted } from './finding.ts';
import { didYouMean } from './suggest.ts';
import { placeIn, type XlAtom } from './xl-cfg-parser.ts';

const PART_NAMES = ['backend', 'type', 'transport', 'grant_usage'] as const;
type PartName = (typeof PART_NAMES)[number];

/** A virtio device that the toolstack announces to the guest and to its backend. */
export interface VirtioSpec {
  /** The domain that serves the device. */
  readonly backend: DomainName;
  /** As in the device tree: "virtio,device" or "virtio,device<id in hexadecimal>". */
  readonly type: string;
  /** The id in `type`: virtio 1.3 §5. */
  readonly deviceId: number | undefined;
  readonly transport: 'mmio';
  /** As written; undefined leaves it to libxl: see usesGrants. */
  readonly grantUsage: boolean | undefined;
  readonly at: Places<PartName>;
}

/** Whether the device reaches the guest's memory through grants; libxl's default is: not if domain 0 serves it. */
export function usesGrants(device: {
  readonly grantUsage: boolean | undefined;
  readonly backend: DomainName;
}): boolean {
  return device.grantUsage ?? !isToolstackDomain(device.backend);
}

/** The device that `atom` describes; undefined when a mistake (reported) leaves none. */
export function parseVirtioSpec(atom: XlAtom, findings: Findings): VirtioSpec | undefined {
  if (!isReadable(atom, findings)) return undefined;
  const parts = splitParts(atom, findings);
  const type = checkType(atom, parts.get('type'), findings);
  const transport = checkTransport(atom, parts.get('transport'), findings);
  const grantUsage = flagOf(parts, 'grant_usage', findings);
  if (type === undefined || !transport) return undefined;
  return {
    backend: backendOf(parts.get('backend'), findings),
    type,
    deviceId: type === GENERIC ? undefined : Number.parseInt(type.slice(GENERIC.length), 16),
    transport: 'mmio',
    grantUsage,
    at: placesOf(atom, parts),
  };
}

const GENERIC = 'virtio,device';

/** `key=value` pieces between commas, save that a type that starts with "virtio" takes the next piece in. */
function splitParts(atom: XlAtom, findings: Findings): ReadonlyMap<PartName, Part> {
  const parts = new Map<PartName, Part>();
  for (const [piece, offset] of pieces(atom.text)) {
    const equals = piece.indexOf('=');
    const key = equals === -1 ? piece : piece.slice(0, equals);
    const name = PART_NAMES.find((each) => each === key);
    const place = placeIn(atom, offset);
    if (name === undefined || equals === -1)
      findings.error(place, `a virtio device has no part ${quoted(piece)}`, didYouMean(key, PART_NAMES));
    else
      addPart(
        parts,
        name,
        { text: piece.slice(equals + 1), ...placeIn(atom, offset + equals + 1) },
        findings,
      );
  }
  return parts;
}

/** Each piece with its offset; blanks before a piece are skipped, as xl does. */
function* pieces(text: string): Generator<[string, number]> {
  // A comma belongs to the type only if no `=` follows before the next comma.
  const pattern = /[ ]*(type=virtio,[^,=]*(?=,|$)|[^,]+)|,/g;
  for (const match of text.matchAll(pattern)) {
    const piece = match[1];
    if (piece !== undefined && piece.trim() !== '')
      yield [piece, match.index + match[0].length - piece.length];
  }
}

function checkType(atom: XlAtom, part: Part | undefined, findings: Findings): string | undefined {
  if (part === undefined) {
    findings.error(
      atom,
      'a virtio device needs a type',
      'for example type=virtio,device1a (1a is the file system)',
    );
    return undefined;
  }
  if (/^virtio,device[0-9a-f]{0,8}$/.test(part.text)) return part.text;
  const id = /^(?:virtio,)?(?:device)?(?:0x)?([0-9a-fA-F]+)$/.exec(part.text)?.[1]?.toLowerCase();
  findings.error(
    part,
    `the type ${quoted(part.text)} is not "virtio,device<id>", the id in lower-case hexadecimal without 0x`,
    `write type=virtio,device${id ?? '<id>'}`,
  );
  return undefined;
}

function checkTransport(atom: XlAtom, part: Part | undefined, findings: Findings): boolean {
  if (part?.text === 'mmio') return true;
  if (part === undefined)
    findings.error(
      atom,
      'without a transport libxl gives the device neither registers nor an interrupt, and says nothing',
      'add transport=mmio',
    );
  else
    findings.error(part, `the transport cannot be ${quoted(part.text)}`, 'libxl knows transport=mmio only');
  return false;
}
