// What the settings of a guest configuration mean, for what grantio uses of them: checked values of the
// guest, its disks and its virtio devices. Before it: xl-cfg-parser.ts; the way in is xl-cfg.ts.

import { type DiskSpec, parseDiskSpec } from './disk-spec.ts';
import { type Findings, quoted } from './finding.ts';
import { didYouMean } from './suggest.ts';
import { parseVirtioSpec, type VirtioSpec } from './virtio-spec.ts';
import type { XlAtom, XlSetting, XlValue } from './xl-cfg-parser.ts';
import { DEVICE_KEYS, XL_KEYS } from './xl-keys.ts';

/** How a guest is virtualised; on Arm there is `pvh` only. */
export type GuestType = 'pv' | 'hvm' | 'pvh';

/** A guest as its configuration describes it. What is undefined was not written and is the toolstack's choice. */
export interface GuestConfig {
  /** Empty if the configuration has no name, which is an error. */
  readonly name: string;
  readonly type: GuestType | undefined;
  /** MiB. */
  readonly memory: number | undefined;
  /** MiB. */
  readonly maxmem: number | undefined;
  readonly vcpus: number;
  /** Frames of 4 KiB that the grant table may have: 512 entries each in version 1, 256 in version 2. */
  readonly maxGrantFrames: number | undefined;
  /** Frames of 4 KiB for the handles of what this guest maps of others, 256 each. */
  readonly maxMaptrackFrames: number | undefined;
  readonly maxGrantVersion: 1 | 2 | undefined;
  readonly disks: readonly DiskSpec[];
  readonly virtio: readonly VirtioSpec[];
  /** The last setting of each key, with the lists and strings of `+=` put together. */
  readonly settings: ReadonlyMap<string, XlSetting>;
}

/** Reads the meaning of `settings`; what is wrong goes to `findings`, and the rest is in the result. */
export function viewGuestConfig(settings: readonly XlSetting[], findings: Findings): GuestConfig {
  const view = new View(effectiveSettings(settings, findings), findings);
  view.reportUnknownKeys();
  return view.config();
}

/** xl takes the last setting of a key without a word; only `+=` adds to what was there before. */
function effectiveSettings(settings: readonly XlSetting[], findings: Findings): Map<string, XlSetting> {
  const groups = new Map<string, XlSetting[]>();
  for (const setting of settings) {
    const group = groups.get(setting.key);
    if (group !== undefined && setting.operator === '+=') group.push(setting);
    else {
      if (group !== undefined) warnOfReplacement(group[0]!, setting, findings);
      groups.set(setting.key, [setting]);
    }
  }
  return new Map([...groups].map(([key, group]) => [key, combined(group, findings)]));
}

function warnOfReplacement(
  before: XlSetting,
  { key, value, line, column }: XlSetting,
  findings: Findings,
): void {
  const help = value.kind === 'list' ? `to add to the list write ${key} += [ … ]` : undefined;
  findings.warning({ line, column }, `this replaces ${quoted(key)} of line ${before.line}`, help);
}

/** One setting of several that add up: lists end to end, or strings. */
function combined(group: readonly XlSetting[], findings: Findings): XlSetting {
  const first = group[0]!;
  if (group.length === 1) return first;
  const lists = group.map(({ value }) => value).filter((value) => value.kind === 'list');
  const atoms = group.map(({ value }) => value).filter((value) => value.kind !== 'list');
  if (lists.length > 0 && atoms.length > 0) {
    const other = group.find(({ value }) => (value.kind === 'list') !== (first.value.kind === 'list'))!;
    findings.error(other, `${quoted(first.key)}: a list and a single value cannot be added`);
    return first;
  }
  const value: XlValue =
    atoms.length === 0
      ? { ...lists[0]!, items: lists.flatMap(({ items }) => items) }
      : { ...atoms[0]!, text: atoms.map(({ text }) => text).join(''), escapes: [] };
  return { ...first, value };
}

class View {
  private readonly settings: ReadonlyMap<string, XlSetting>;
  private readonly findings: Findings;

  constructor(settings: ReadonlyMap<string, XlSetting>, findings: Findings) {
    this.settings = settings;
    this.findings = findings;
  }

  config(): GuestConfig {
    const config: GuestConfig = {
      name: this.name(),
      type: this.type(),
      memory: this.integer('memory', 1),
      maxmem: this.integer('maxmem', 1),
      vcpus: this.integer('vcpus', 1, 8192) ?? 1,
      maxGrantFrames: this.integer('max_grant_frames', 1),
      maxMaptrackFrames: this.integer('max_maptrack_frames', 0),
      maxGrantVersion: this.integer('max_grant_version', 1, 2) as 1 | 2 | undefined,
      disks: this.devices('disk', parseDiskSpec),
      virtio: this.devices('virtio', parseVirtioSpec),
      settings: this.settings,
    };
    this.checkMemory(config);
    this.checkVdevs(config.disks);
    return config;
  }

  /** xl passes over names that it does not know. */
  reportUnknownKeys(): void {
    const known = new Set(XL_KEYS);
    for (const setting of this.settings.values()) {
      const { key } = setting;
      if (this.findings.full) return;
      if (known.has(key)) continue;
      const help = DEVICE_KEYS.includes(key)
        ? `it belongs to a device: disk = [ "…,${key}…" ] or virtio = [ "…,${key}…" ]`
        : didYouMean(key, XL_KEYS);
      this.findings.error(setting, `xl knows no setting ${quoted(key)} and would pass over it`, help);
    }
  }

  /** The single value of `key`; a list there is reported. */
  private atom(key: string): XlAtom | undefined {
    const value = this.settings.get(key)?.value;
    if (value?.kind !== 'list') return value;
    this.findings.error(value, `${quoted(key)} takes a single value, not a list`);
    return undefined;
  }

  private name(): string {
    const atom = this.atom('name');
    if (atom !== undefined && atom.text !== '') return atom.text;
    if (!this.settings.has('name'))
      this.findings.error({ line: 1, column: 1 }, 'the guest has no name', 'add name = "…"');
    else if (atom !== undefined) this.findings.error(atom, 'the name of the guest is empty');
    return '';
  }

  private type(): GuestType | undefined {
    const types: readonly GuestType[] = ['pv', 'hvm', 'pvh'];
    const atom = this.atom('type');
    if (atom === undefined) return this.builder();
    const type = types.find((each) => each === atom.text);
    if (type === undefined)
      this.findings.error(
        atom,
        `the type of a guest cannot be ${quoted(atom.text)}`,
        'expected "pv", "hvm" or "pvh"',
      );
    return type;
  }

  /** The old way to say what the guest's type is. */
  private builder(): GuestType | undefined {
    const atom = this.atom('builder');
    if (atom === undefined) return undefined;
    const type = atom.text === 'hvm' ? 'hvm' : 'pv';
    this.findings.warning(atom, '`builder` is of before Xen 4.10', `write type = "${type}"`);
    return type;
  }

  /** An integer as C's strtol reads it with base 0: decimal, 0x hexadecimal, and octal after a leading 0. */
  private integer(key: string, min: number, max = 0x7fff_ffff): number | undefined {
    const atom = this.atom(key);
    if (atom === undefined) return undefined;
    const { text } = atom;
    const octal = /^0[0-7]+$/.test(text);
    if (!octal && !/^(?:0|[1-9][0-9]*|0x[0-9a-fA-F]+)$/.test(text)) {
      this.findings.error(atom, `${quoted(key)} takes a number, not ${quoted(text)}`);
      return undefined;
    }
    const value = octal ? Number.parseInt(text, 8) : Number(text);
    if (octal)
      this.findings.warning(atom, `${text} is octal, because of its leading 0: ${value}`, 'leave the 0 out');
    if (value >= min && value <= max) return value;
    this.findings.error(atom, `${quoted(key)} is ${value}; expected ${min} to ${max}`);
    return undefined;
  }

  private devices<Spec>(key: string, parse: (atom: XlAtom, findings: Findings) => Spec | undefined): Spec[] {
    const value = this.settings.get(key)?.value;
    if (value === undefined) return [];
    if (value.kind !== 'list') {
      this.findings.error(
        value,
        `${quoted(key)} takes a list and xl passes over a single value`,
        `write ${key} = [ … ]`,
      );
      return [];
    }
    return value.items.flatMap((item) => {
      if (this.findings.full) return [];
      if (item.kind !== 'list') return parse(item, this.findings) ?? [];
      this.findings.error(item, `an element of ${quoted(key)} is a string, not a list`);
      return [];
    });
  }

  private checkMemory({ memory, maxmem }: GuestConfig): void {
    if (memory === undefined || maxmem === undefined || maxmem >= memory) return;
    this.findings.error(
      this.settings.get('maxmem')!.value,
      `maxmem is ${maxmem}, below memory, which is ${memory}`,
    );
  }

  private checkVdevs(disks: readonly DiskSpec[]): void {
    const seen = new Map<string, DiskSpec>();
    for (const disk of disks) {
      const before = seen.get(disk.vdev);
      if (before === undefined) seen.set(disk.vdev, disk);
      else {
        const place = disk.at.vdev ?? disk.at.spec;
        this.findings.error(
          place,
          `the vdev ${disk.vdev} is taken by the disk of line ${before.at.spec.line}`,
        );
      }
    }
  }
}
