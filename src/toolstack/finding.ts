// What a reader of configuration files has to say about a place in one: the readers of xl.cfg and device
// trees return findings and never throw, because people write these files and want all mistakes at once.

/** `error`: refused, or not what it says. `warning`: works, but is a trap. `note`: good to know. */
export type Severity = 'error' | 'warning' | 'note';

/** A place in a text. */
export interface Place {
  /** From 1. */
  readonly line: number;
  /** From 1, in UTF-16 code units. */
  readonly column: number;
}

/** One thing that is wrong, or worth knowing, at one place of a file. */
export interface Finding extends Place {
  readonly severity: Severity;
  /** The file's name as the caller gave it. */
  readonly file: string;
  /** What was found, and what would have been right. */
  readonly message: string;
  /** What to write instead. */
  readonly help?: string;
}

/** Findings about one file kept at most; a file with more is not what its name says. */
const MAX_FINDINGS = 100;

/** Collects the findings about one file, at most 100 of them. */
export class Findings {
  readonly file: string;
  readonly list: Finding[] = [];

  constructor(file: string) {
    this.file = file;
  }

  /** Whether further findings would be dropped, so that a reader may as well stop. */
  get full(): boolean {
    return this.list.length >= MAX_FINDINGS;
  }

  error(place: Place, message: string, help?: string): void {
    this.add('error', place, message, help);
  }

  warning(place: Place, message: string, help?: string): void {
    this.add('warning', place, message, help);
  }

  private add(severity: Severity, { line, column }: Place, message: string, help: string | undefined): void {
    if (this.full) return;
    const finding = { severity, file: this.file, line, column, message };
    this.list.push(help === undefined ? finding : { ...finding, help });
  }
}

/** Whether one of `findings` is an error. */
export function hasErrors(findings: readonly Finding[]): boolean {
  return findings.some(({ severity }) => severity === 'error');
}

/** `findings` in the order of their places, file by file. */
export function sortFindings<F extends Finding>(findings: readonly F[]): F[] {
  return findings.toSorted((a, b) => {
    if (a.file !== b.file) return a.file < b.file ? -1 : 1;
    return a.line - b.line || a.column - b.column;
  });
}

/** `file:line:column: error: message`, as compilers write it, and the help on a second line. */
export function formatFinding({ file, line, column, severity, message, help }: Finding): string {
  const first = `${file}:${line}:${column}: ${severity}: ${message}`;
  return help === undefined ? first : `${first}\n  help: ${help}`;
}

/** Longest piece of a file that a message repeats. */
const MAX_QUOTED = 60;

/**
 * A piece of a file for use in a message: in backquotes, cut to `most` characters, and with control characters
 * written out, so that a hostile file cannot speak to the terminal.
 */
export function quoted(text: string, most = MAX_QUOTED): string {
  const short = text.length > most ? `${text.slice(0, most)}…` : text;
  const plain = short.replace(
    // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
    /[\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069\ufeff]/g,
    (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`,
  );
  return `\`${plain}\``;
}
