// Findings for code review tools: SARIF 2.1.0 (OASIS). Used by lint/ and audit/, whose findings differ in where
// they are: in a line of a file, or in an event of a trace.

import type { Severity } from './finding.ts';

/** A rule as the log lists it. */
export interface SarifRule {
  readonly id: string;
  readonly severity: Severity;
  readonly summary: string;
  readonly why: string;
}

/** A finding as the log has it. */
export interface SarifResult {
  /** Id of one of the rules. */
  readonly rule: string;
  readonly severity: Severity;
  readonly message: string;
  /** Path of the file. */
  readonly file: string;
  /** The place in it (§3.30), where there is one. */
  readonly region?: object;
  /** What it is about, for people (§3.33). */
  readonly logicalName?: string;
  /** What else programs may want to know (§3.8). */
  readonly properties?: object;
}

/** What SARIF calls the severities (§3.27.10). */
const LEVELS: Readonly<Record<Severity, string>> = { error: 'error', warning: 'warning', note: 'note' };

/** One SARIF run of grantio with all rules, as JSON. */
export function sarifLog(rules: readonly SarifRule[], results: readonly SarifResult[]): string {
  const indices = new Map(rules.map(({ id }, index) => [id, index]));
  const driver = {
    name: 'grantio',
    rules: rules.map(({ id, summary, why, severity }) => ({
      id,
      shortDescription: { text: summary },
      fullDescription: { text: why },
      defaultConfiguration: { level: LEVELS[severity] },
    })),
  };
  const run = {
    tool: { driver },
    columnKind: 'utf16CodeUnits',
    results: results.map(({ rule, severity, message, properties, ...place }) => ({
      ruleId: rule,
      ruleIndex: indices.get(rule),
      level: LEVELS[severity],
      message: { text: message },
      locations: [locationOf(place)],
      ...(properties && { properties }),
    })),
  };
  const log = {
    $schema: 'https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json',
    version: '2.1.0',
    runs: [run],
  };
  return `${JSON.stringify(log, null, 2)}\n`;
}

function locationOf({
  file,
  region,
  logicalName,
}: Pick<SarifResult, 'file' | 'region' | 'logicalName'>): object {
  return {
    physicalLocation: { artifactLocation: { uri: uriOf(file) }, ...(region && { region }) },
    ...(logicalName !== undefined && { logicalLocations: [{ name: logicalName }] }),
  };
}

/** A path as URI reference: relative ones stay so. */
function uriOf(path: string): string {
  const encoded = path.split(/[\\/]/).map(encodeURIComponent).join('/');
  return path.startsWith('/') ? `file://${encoded}` : encoded;
}
