// Lints guest configurations, device trees and Xenstore dumps together: the readers' findings, then every
// rule of rules/. Pure: files come as bytes, findings go back as values; cli/lint.ts is the command.

import { type Severity, sortFindings } from '../toolstack/finding.ts';
import { ALL_RULES } from './all-rules.ts';
import type { FileKind, InputFile } from './files.ts';
import { readProject } from './project.ts';
import type { LintFinding, Rule } from './rule.ts';

/** What the files do not say. */
interface LintOptions {
  /** Whether the guest's kernel has XEN_VIRTIO_FORCE_GRANT: every device has to use grants. */
  readonly forceGrants?: boolean;
}

/** Findings of one rule that are kept; more of the same tell nothing. */
const MAX_FINDINGS_OF_RULE = 100;

/** What stands behind the findings of the readers. */
export const READER_RULES: Readonly<Record<FileKind, Omit<Rule, 'check' | 'severity'>>> = {
  'xl-cfg': {
    id: 'xl-cfg',
    summary: 'A guest configuration is read by xl as it looks',
    why: 'xl stops at the first mistake in the form of a file, and passes in silence over names that it does not know.',
  },
  'device-tree': {
    id: 'device-tree',
    summary: 'A device tree has the form of the Devicetree Specification',
    why: 'Xen, boot loaders and kernels walk a blob by its offsets and lengths; a compiler refuses a source that has mistakes.',
  },
  xenstore: {
    id: 'xenstore',
    summary: 'A dump of Xenstore is whole',
    why: 'A line that is missing or cut off hides from the rules what a domain would see.',
  },
};

/** Lints `files` together; the findings come sorted by file and place. Never throws. */
export function lintFiles(files: readonly InputFile[], options: LintOptions = {}): LintFinding[] {
  const { project, readings } = readProject(files, options.forceGrants ?? false);
  const ofReaders = readings.flatMap(({ kind, findings }) => {
    const { id, why } = READER_RULES[kind];
    return findings.map((finding) => ({ ...finding, rule: id, why }));
  });
  const ofRules = ALL_RULES.flatMap((rule) => {
    const findings: LintFinding[] = [];
    for (const { file, place, message, help } of rule.check(project)) {
      const { line, column } = place;
      const finding = { severity: rule.severity, file, line, column, message, rule: rule.id, why: rule.why };
      findings.push(help === undefined ? finding : { ...finding, help });
      if (findings.length === MAX_FINDINGS_OF_RULE) break;
    }
    return findings;
  });
  return sortFindings([...ofReaders, ...ofRules]);
}

/** How many findings of each severity there are. */
export function countFindings(findings: readonly LintFinding[]): Readonly<Record<Severity, number>> {
  const count = (wanted: Severity) => findings.filter(({ severity }) => severity === wanted).length;
  return { error: count('error'), warning: count('warning'), note: count('note') };
}
