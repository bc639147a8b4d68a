// Findings for programs: JSON of this project, and SARIF (toolstack/sarif.ts), which code review tools read.

import { sarifLog } from '../toolstack/sarif.ts';
import { ALL_RULES } from './all-rules.ts';
import { countFindings, READER_RULES } from './lint.ts';
import { type InputFile, isBlob } from './files.ts';
import type { LintFinding } from './rule.ts';

/** The findings and how many there are of each severity, as JSON. */
export function formatJson(findings: readonly LintFinding[]): string {
  return `${JSON.stringify({ version: 1, counts: countFindings(findings), findings }, null, 2)}\n`;
}

/** The findings about `files` as one SARIF run, with all rules. */
export function formatSarif(findings: readonly LintFinding[], files: readonly InputFile[]): string {
  const blobs = new Set(files.filter(({ bytes }) => isBlob(bytes)).map(({ path }) => path));
  const readers = Object.values(READER_RULES).map((rule) => ({ ...rule, severity: 'error' as const }));
  const results = findings.map(({ rule, severity, message, help, file, line, column }) => ({
    rule,
    severity,
    message: help === undefined ? message : `${message}; ${help}`,
    file,
    region: blobs.has(file)
      ? { byteOffset: column - 1, byteLength: 0 }
      : { startLine: line, startColumn: column },
  }));
  return sarifLog([...readers, ...ALL_RULES], results);
}
