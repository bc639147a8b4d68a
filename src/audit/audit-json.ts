// An audit for programs: one JSON document, whose shape docs/audit.md describes, or SARIF.

import { sarifLog } from '../toolstack/sarif.ts';
import { type AuditReport, countSeverities, deviceOf } from './audit.ts';
import { AUDIT_RULES, auditRule } from './audit-rules.ts';
import { describe } from './audit-words.ts';

/** Version of the JSON document. */
const VERSION = 1;

/** The report about the trace called `file`. */
export function auditJson(report: AuditReport, file: string): string {
  const { header, isComplete, missing, runs } = report;
  const document = {
    version: VERSION,
    file,
    trace: { ...header, isComplete, missing },
    counts: countSeverities(report),
    runs: runs.map((run) => ({
      mode: run.mode,
      events: run.events,
      durationNanoseconds: run.duration,
      total: run.total,
      devices: run.devices.map((figures) => {
        const { name, type } = deviceOf(header, figures.domain, figures.device) ?? {};
        return { ...figures, name, type };
      }),
      findings: run.findings.map(({ stack, ...finding }) => ({
        severity: auditRule(finding.rule).severity,
        ...finding,
        ...(stack !== undefined && { stack: { number: stack, text: run.stacks.get(stack) } }),
      })),
    })),
  };
  return `${JSON.stringify(document, null, 2)}\n`;
}

/** The same as one SARIF run, with all rules. */
export function auditSarif(report: AuditReport, file: string): string {
  const results = report.runs.flatMap((run) =>
    run.findings.map((finding) => {
      const { rule, count, bytes, maxNanoseconds, first, worst, domain, device } = finding;
      const { severity, summary, help } = auditRule(rule);
      const { subject, extent, examples, owners, stack } = describe(report, run, finding);
      const details = [examples[0], owners, stack].filter((text) => text !== undefined).join('; ');
      return {
        rule,
        severity,
        message: `${subject}: ${summary}, but not here: ${extent} (${details}); ${help}`,
        file,
        logicalName: subject,
        properties: { mode: run.mode, domain, device, count, bytes, maxNanoseconds, first, worst },
      };
    }),
  );
  return sarifLog(AUDIT_RULES, results);
}
