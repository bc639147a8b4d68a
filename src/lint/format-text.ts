// Findings for people: as compilers print them, with the line of the file and a caret below the place.

import { formatFinding, quoted } from '../toolstack/finding.ts';
import { countFindings } from './lint.ts';
import { type InputFile, isBlob, textOf } from './files.ts';
import type { LintFinding } from './rule.ts';

/** Columns of a source line that are shown around the caret. */
const SHOWN = 100;

/** The findings about `files`, one paragraph each, and a last line that counts them. */
export function formatText(findings: readonly LintFinding[], files: readonly InputFile[]): string {
  const lines = new Map(
    files.map((file) => [file.path, isBlob(file.bytes) ? [] : textOf(file.bytes).split('\n')]),
  );
  const paragraphs = findings.map((finding) =>
    paragraph(finding, lines.get(finding.file)?.[finding.line - 1]),
  );
  return [...paragraphs, countLine(findings, files.length)].map((text) => `${text}\n`).join('\n');
}

function paragraph(finding: LintFinding, line: string | undefined): string {
  const { rule, why, help, ...first } = finding;
  const parts = [`${formatFinding(first)} [${rule}]`];
  if (line !== undefined) parts.push(excerpt(line, finding));
  parts.push(`  why: ${why}`);
  if (help !== undefined) parts.push(`  help: ${help}`);
  return parts.join('\n');
}

/** The line around the place, printable characters only, and the caret. */
function excerpt(line: string, { line: number, column }: LintFinding): string {
  const start = Math.max(0, Math.min(column - 1 - SHOWN / 2, line.length - SHOWN));
  // quoted() puts a backquote on either side.
  const printable = (text: string) =>
    Array.from(text, (character) => quoted(character === '\t' ? ' ' : character).slice(1, -1)).join('');
  const before = printable(line.slice(start, column - 1));
  const after = printable(line.slice(column - 1, start + SHOWN));
  const margin = ` ${number} | `;
  return `${margin}${before}${after}\n${' '.repeat(margin.length - 2)}| ${' '.repeat(before.length)}^`;
}

function countLine(findings: readonly LintFinding[], files: number): string {
  const { error, warning, note } = countFindings(findings);
  const count = (number: number, what: string) => `${number} ${what}${number === 1 ? '' : 's'}`;
  return `${count(files, 'file')}: ${count(error, 'error')}, ${count(warning, 'warning')}, ${count(note, 'note')}`;
}
