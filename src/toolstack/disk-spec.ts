// One element of `disk = [ … ]` in a guest configuration (xl-disk-configuration(5)): parts by position
// (target, format, vdev, access) or as key=value, flags, and `target=`, which takes the rest of the string.

import {
  addPart,
  backendOf,
  choiceOf,
  type DomainName,
  flagOf,
  isReadable,
  type Part,
  type Places,
  placesOf,
} from './device-spec.ts';
import { type Findings, type Place, quoted } from './finding.ts';
import { didYouMean } from './suggest.ts';
import { placeIn, type XlAtom } from './xl-cfg-parser.ts';

const POSITIONAL = ['target', 'format', 'vdev', 'access'] as const;
const PART_NAMES = [
  ...POSITIONAL,
  'devtype',
  'backend',
  'backendtype',
  'specification',
  'script',
  'grant_usage',
  'transport',
  'trusted',
  'discard',
  'direct-io-safe',
  'colo',
  'colo-host',
  'colo-port',
  'colo-export',
  'active-disk',
  'hidden-disk',
] as const;
type PartName = (typeof PART_NAMES)[number];

/** Words that stand alone, and the part each sets. */
const FLAGS: Readonly<Record<string, readonly [PartName, string]>> = {
  cdrom: ['devtype', 'cdrom'],
  trusted: ['trusted', '1'],
  untrusted: ['trusted', '0'],
  discard: ['discard', '1'],
  'no-discard': ['discard', '0'],
  'direct-io-safe': ['direct-io-safe', '1'],
  colo: ['colo', '1'],
  'no-colo': ['colo', '0'],
};

const FORMATS = ['raw', 'qcow', 'qcow2', 'vhd', 'qed', 'empty'] as const;
const BACKEND_TYPES = ['phy', 'tap', 'qdisk', 'standalone'] as const;

/** A disk that the toolstack gives to the guest. */
export interface DiskSpec {
  /** Path of the block device or image file; undefined for a drive without a medium. */
  readonly target: string | undefined;
  readonly format: (typeof FORMATS)[number];
  /** The disk's name for the toolstack; with specification "virtio" the guest never sees it. */
  readonly vdev: string;
  readonly access: 'ro' | 'rw';
  readonly cdrom: boolean;
  /** The domain that serves the disk. */
  readonly backend: DomainName;
  /** As written; undefined leaves the choice to libxl. */
  readonly backendtype: (typeof BACKEND_TYPES)[number] | undefined;
  readonly specification: 'xen' | 'virtio';
  /** As written; undefined leaves it to libxl: see usesGrants. For specification "virtio" only. */
  readonly grantUsage: boolean | undefined;
  /** Whether the guest may trust the backend: advice to its drivers. */
  readonly trusted: boolean;
  /** As written; libxl's default is: if the disk may be written. */
  readonly discard: boolean | undefined;
  readonly script: string | undefined;
  readonly at: Places<PartName>;
}

/** The disk that `atom` describes; undefined when a mistake (reported) leaves none. */
export function parseDiskSpec(atom: XlAtom, findings: Findings): DiskSpec | undefined {
  if (!isReadable(atom, findings)) return undefined;
  const parts = new PartReader(atom, findings).read();
  const cdrom = choiceOf(parts, 'devtype', ['cdrom', 'disk'], findings) === 'cdrom';
  const target = parts.get('target')?.text || undefined;
  const written = choiceOf(parts, 'format', FORMATS, findings) ?? 'raw';
  const readonly = isReadOnly(parts, findings);
  const vdev = checkVdev(atom, parts.get('vdev'), findings);
  if (target === undefined && !cdrom && written !== 'empty')
    findings.error(
      atom,
      'a disk needs a target',
      'start with the path of the image or device, or add target=PATH',
    );
  checkTransport(parts, findings);
  return vdev === undefined
    ? undefined
    : {
        target,
        format: target === undefined ? 'empty' : written,
        vdev,
        access: cdrom || readonly ? 'ro' : 'rw',
        cdrom,
        backend: backendOf(parts.get('backend'), findings),
        backendtype: choiceOf(parts, 'backendtype', BACKEND_TYPES, findings),
        specification: choiceOf(parts, 'specification', ['xen', 'virtio'], findings) ?? 'xen',
        grantUsage: flagOf(parts, 'grant_usage', findings),
        trusted: flagOf(parts, 'trusted', findings) ?? true,
        discard: flagOf(parts, 'discard', findings),
        script: parts.get('script')?.text || undefined,
        at: placesOf(atom, parts),
      };
}

function isReadOnly(parts: ReadonlyMap<PartName, Part>, findings: Findings): boolean {
  const access = choiceOf(parts, 'access', ['r', 'ro', 'w', 'rw'], findings);
  return access === 'r' || access === 'ro';
}

function checkTransport(parts: ReadonlyMap<PartName, Part>, findings: Findings): void {
  const part = parts.get('transport');
  if (part === undefined) return;
  if (part.text === 'mmio')
    findings.warning(
      part,
      'xl refuses `transport` in a disk',
      'leave it out: a virtio disk is always on mmio',
    );
  else
    findings.error(
      part,
      `the transport cannot be ${quoted(part.text)}`,
      'libxl knows virtio disks on mmio only',
    );
}

/** xvda, hda, sda with an optional partition, d<disk>p<partition>, or a number, as libxl takes them. */
const VDEV = /^(?:xvd[a-z]+|hd[a-d]|sd[a-p])(?:[1-9][0-9]*)?$|^d[0-9]+p[0-9]+$|^(?:0x[0-9a-f]+|[0-9]+)$/;

function checkVdev(atom: XlAtom, part: Part | undefined, findings: Findings): string | undefined {
  if (part === undefined || part.text === '') {
    findings.error(part ?? atom, 'a disk needs a vdev', 'add vdev=xvda');
    return undefined;
  }
  if (VDEV.test(part.text)) return part.text;
  const help = /^vd[a-z]/.test(part.text)
    ? `write x${part.text}: vdev is the toolstack's name of the disk, also with specification=virtio`
    : 'expected xvda…, hda…hdd or sda…sdp';
  findings.error(part, `libxl knows no vdev ${quoted(part.text)}`, help);
  return undefined;
}

/** A prefix of the syntax of xend, and the part it sets, if any. */
const PREFIX = /^(?:(raw|qcow2?|vhd)|(iscsi|e?nbd|drbd)|tapdisk|tap2?|aio|ioemu|file|phy):/;

/** What xl takes for a prefix too, as in "rbd:/pool": a path or nothing follows the colon. */
const UNKNOWN_PREFIX = /^[a-z][a-z0-9]*:(?![a-z0-9])/;

/** Walks over one description, left to right. */
class PartReader {
  private readonly atom: XlAtom;
  private readonly findings: Findings;
  private readonly parts = new Map<PartName, Part>();
  private offset = 0;
  private hadPrefix = false;

  constructor(atom: XlAtom, findings: Findings) {
    this.atom = atom;
    this.findings = findings;
  }

  read(): ReadonlyMap<PartName, Part> {
    const { text } = this.atom;
    while (true) {
      while (/[ \t\n]/.test(text.charAt(this.offset))) this.offset++;
      if (this.offset >= text.length) return this.parts;
      if (text.startsWith('target=', this.offset)) {
        this.set('target', text.slice(this.offset + 7).replace(/,$/, ''), this.offset + 7);
        return this.parts;
      }
      const comma = text.indexOf(',', this.offset);
      const end = comma === -1 ? text.length : comma;
      if (!this.skipPrefix()) {
        this.piece(text.slice(this.offset, end));
        this.offset = end + 1;
      }
    }
  }

  private place(offset: number): Place {
    return placeIn(this.atom, offset);
  }

  private set(name: PartName, text: string, offset: number): void {
    addPart(this.parts, name, { text, ...this.place(offset) }, this.findings);
  }

  private skipPrefix(): boolean {
    const found = PREFIX.exec(this.atom.text.slice(this.offset, this.offset + 10));
    if (found === null) return false;
    const [prefix, format, script] = found;
    this.findings.warning(
      this.place(this.offset),
      `the prefix ${quoted(prefix)} is of xend's syntax`,
      format ? `write format=${format}` : script ? `write script=block-${script}` : 'leave it out',
    );
    if (format) this.set('format', format, this.offset);
    if (script) this.set('script', `block-${script}`, this.offset);
    this.hadPrefix = true;
    this.offset += prefix.length;
    return true;
  }

  private piece(text: string): void {
    const flag = Object.hasOwn(FLAGS, text) ? FLAGS[text] : undefined;
    if (flag !== undefined) this.set(flag[0], flag[1], this.offset);
    else if (text === 'readonly') this.readonlyFlag();
    else if (text.includes('=')) this.named(text);
    else if (UNKNOWN_PREFIX.test(text)) this.unknownPrefix(text);
    else this.positional(text);
  }

  private unknownPrefix(text: string): void {
    this.findings.error(
      this.place(this.offset),
      `xl takes the start of ${quoted(text)} for a prefix that it does not know`,
      `write the target last, as target=${text}`,
    );
  }

  private readonlyFlag(): void {
    this.findings.warning(this.place(this.offset), 'xl has no flag `readonly` for disks', 'write access=ro');
    this.set('access', 'ro', this.offset);
  }

  private named(text: string): void {
    const equals = text.indexOf('=');
    const key = text.slice(0, equals);
    const name = PART_NAMES.find((each) => each === key);
    if (name !== undefined && !Object.hasOwn(FLAGS, key)) {
      this.set(name, text.slice(equals + 1), this.offset + equals + 1);
      return;
    }
    if (key === 'trusted') {
      this.findings.warning(
        this.place(this.offset),
        'xl refuses `trusted=`',
        'write `trusted` or `untrusted`',
      );
      this.set('trusted', text.slice(equals + 1), this.offset + equals + 1);
      return;
    }
    const help = /^[a-z][-a-z0-9_]*$/.test(key)
      ? didYouMean(key, PART_NAMES)
      : 'a target that contains `=` is written last, as target=PATH';
    this.findings.error(this.place(this.offset), `a disk has no part ${quoted(text)}`, help);
  }

  private positional(text: string): void {
    if (this.parts.get('target')?.text === '' && !this.parts.has('format') && /:(cdrom|disk)$/.test(text)) {
      this.set('format', 'empty', this.offset);
      this.vdevAndType(text);
      return;
    }
    const free = POSITIONAL.find((name) => !this.parts.has(name) && !(name === 'format' && this.hadPrefix));
    if (free === undefined)
      this.findings.error(
        this.place(this.offset),
        `${quoted(text)} is one part too many`,
        'target, format, vdev and access are set already',
      );
    else if (free === 'vdev') this.vdevAndType(text);
    else this.set(free, text, this.offset);
  }

  /** `hdc:cdrom`, the old way to say what the vdev is. */
  private vdevAndType(text: string): void {
    const colon = text.lastIndexOf(':');
    this.set('vdev', colon === -1 ? text : text.slice(0, colon), this.offset);
    if (colon !== -1) this.set('devtype', text.slice(colon + 1), this.offset + colon + 1);
  }
}
