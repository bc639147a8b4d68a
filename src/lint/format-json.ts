// Findings for programs: JSON of this project, and SARIF 2.1.0 (OASIS), which code review tools read.

import type { Severity } from '../toolstack/finding.ts';
import { ALL_RULES } from './all-rules.ts';
import { countFindings, READER_RULES } from './lint.ts';
import { type InputFile, isBlob } from './files.ts';
import type { LintFinding } from './rule.ts';

/** The findings and how many there are of each severity, as JSON. */
export function formatJson(findings: readonly LintFinding[]): string {
  return `${JSON.stringify({ version: 1, counts: countFindings(findings), findings }, null, 2)}\n`;
}

/** What SARIF calls the severities (§3.27.10). */
const LEVELS: Readonly<Record<Severity, string>> = { error: 'error', warning: 'warning', note: 'note' };

/** The findings about `files` as one SARIF run, with all rules. */
export function formatSarif(findings: readonly LintFinding[], files: readonly InputFile[]): string {
  const blobs = new Set(files.filter(({ bytes }) => isBlob(bytes)).map(({ path }) => path));
  const rules = [
    ...Object.values(READER_RULES).map((rule) => ({ ...rule, severity: 'error' as const })),
    ...ALL_RULES,
  ].map(({ id, summary, why, severity }) => ({
    id,
    shortDescription: { text: summary },
    fullDescription: { text: why },
    defaultConfiguration: { level: LEVELS[severity] },
  }));
  const indices = new Map(rules.map(({ id }, index) => [id, index]));
  const results = findings.map((finding) => ({
    ruleId: finding.rule,
    ruleIndex: indices.get(finding.rule),
    level: LEVELS[finding.severity],
    message: { text: finding.help === undefined ? finding.message : `${finding.message}; ${finding.help}` },
    locations: [
      {
        physicalLocation: {
          artifactLocation: { uri: uriOf(finding.file) },
          region: blobs.has(finding.file)
            ? { byteOffset: finding.column - 1, byteLength: 0 }
            : { startLine: finding.line, startColumn: finding.column },
        },
      },
    ],
  }));
  const run = { tool: { driver: { name: 'grantio', rules } }, columnKind: 'utf16CodeUnits', results };
  const log = {
    $schema: 'https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json',
    version: '2.1.0',
    runs: [run],
  };
  return `${JSON.stringify(log, null, 2)}\n`;
}

/** A path as URI reference: relative ones stay so. */
function uriOf(path: string): string {
  const encoded = path.split(/[\\/]/).map(encodeURIComponent).join('/');
  return path.startsWith('/') ? `file://${encoded}` : encoded;
}
