// Reads what `xenstore-ls -f` prints, with or without -p: one line a node, path, value and permissions. The
// values come from every domain of the host, so nothing in them is believed.

import { type Finding, Findings, type Place, quoted } from './finding.ts';

/** What a domain may do with a node. */
type StoreAccess = 'none' | 'read' | 'write' | 'both';

/** A node's permissions: who owns it, what all others may do, and what some domains may do besides. */
export interface StorePermissions {
  readonly owner: number;
  readonly others: StoreAccess;
  readonly domains: ReadonlyMap<number, StoreAccess>;
}

/** A node of the store, at the place of its line. */
export interface StoreEntry extends Place {
  readonly value: string;
  /** Where the value starts. */
  readonly valuePlace: Place;
  /** Undefined in a dump without -p. */
  readonly permissions: StorePermissions | undefined;
}

/** The nodes of a dump by their paths. */
export type StoreEntries = ReadonlyMap<string, StoreEntry>;

/** What reading a dump gave: the nodes that could be read, and what is wrong with the rest. */
interface StoreReading {
  readonly entries: StoreEntries;
  readonly findings: readonly Finding[];
}

/** Characters; the store of a host with a thousand guests has a few million. */
const MAX_TEXT = 16 << 20;

/** Path; then the value, or a colon if there is none that may be read; then dots and permissions. */
const LINE = /^(\/[-A-Za-z0-9/_@]*)(?: = "(.*)"|:)(?:[ .]*\(([nrwb0-9,]*)\))?$/;

/** Reads a dump. Never throws. */
export function readXenstoreDump(text: string, file: string): StoreReading {
  const findings = new Findings(file);
  const entries = new Map<string, StoreEntry>();
  if (text.length > MAX_TEXT)
    findings.error(
      { line: 1, column: 1 },
      `the file has ${text.length} characters; at most ${MAX_TEXT} are read`,
    );
  else
    for (const [index, line] of text.split('\n').entries()) {
      if (findings.full) break;
      if (line !== '') readLine(line, index + 1, entries, findings);
    }
  return { entries, findings: findings.list };
}

function readLine(text: string, line: number, entries: Map<string, StoreEntry>, findings: Findings): void {
  const place = { line, column: 1 };
  const found = LINE.exec(text);
  if (found === null) {
    // Without -f the lines are indented names.
    const help = /^ *[-A-Za-z0-9_@]+ = "/.test(text) ? 'print whole paths, with xenstore-ls -f' : undefined;
    findings.error(place, `${quoted(text)} is no line of \`xenstore-ls -f\``, help);
    return;
  }
  const [, path, value = '', permissions] = found;
  if (entries.has(path!)) findings.error(place, `the node ${quoted(path!)} is there twice`);
  if (value.endsWith('\\...'))
    findings.error(
      place,
      `the value of ${quoted(path!)} is cut off`,
      'print wide lines, with xenstore-ls -f -w',
    );
  entries.set(path!, {
    ...place,
    value: unescaped(value),
    valuePlace: { line, column: path!.length + ' = "'.length + 1 },
    permissions: permissions === undefined ? undefined : readPermissions(permissions),
  });
}

const ESCAPES: Readonly<Record<string, string>> = { t: '\t', n: '\n', r: '\r', '\\': '\\' };

/** Undoes what xenstore-ls does to unprintable characters. */
function unescaped(value: string): string {
  return value.replace(/\\(?:x([0-9a-f]{2})|([0-7]{3})|([tnr\\]))/g, (_, hexadecimal, octal, letter) => {
    if (hexadecimal !== undefined) return String.fromCharCode(Number.parseInt(hexadecimal, 16));
    return octal === undefined ? ESCAPES[letter]! : String.fromCharCode(Number.parseInt(octal, 8));
  });
}

const ACCESS: Readonly<Record<string, StoreAccess>> = { n: 'none', r: 'read', w: 'write', b: 'both' };

/** "n0,r1": the first names the owner and what others may do, the rest what one domain may do. */
function readPermissions(text: string): StorePermissions | undefined {
  const all = [...text.matchAll(/([nrwb])([0-9]+)/g)].map(
    ([, letter, domain]) => [Number(domain), ACCESS[letter!]!] as const,
  );
  const first = all[0];
  return first && { owner: first[0], others: first[1], domains: new Map(all.slice(1)) };
}

/** Whether `domain` may write a node; domain 0 may write all. */
export function mayWrite({ owner, others, domains }: StorePermissions, domain: number): boolean {
  if (domain === owner || domain === 0) return true;
  const access = domains.get(domain) ?? others;
  return access === 'write' || access === 'both';
}
