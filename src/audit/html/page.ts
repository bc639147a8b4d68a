// The audit as one self-contained page that works from a file: verdict, figures, findings, and for each run a
// timeline (timeline-view.ts) and a page map (page-map.ts). After audit.ts. The script only shows what a cell
// under the pointer says; without it everything is there in tables.

import { type AuditedRun, type AuditReport, countSeverities } from '../audit.ts';
import { auditRule } from '../audit-rules.ts';
import { columnsOf, verdict } from '../audit-text.ts';
import { describe } from '../audit-words.ts';
import type { Finding } from '../findings.ts';
import { type ReportColumn, reportRows } from '../report.ts';
import { countText, timeText } from '../units.ts';
import { html, Markup } from './markup.ts';
import { pageMap } from './page-map.ts';
import { SCRIPT, SCRIPT_HASH } from './script.ts';
import { STYLE, STYLE_HASH } from './style.ts';
import { timelineView } from './timeline-view.ts';

/** Only this page's own style and script are let in, by their hashes, and nothing is fetched. */
const POLICY = `default-src 'none'; style-src '${STYLE_HASH}'; script-src '${SCRIPT_HASH}'; base-uri 'none'; form-action 'none'`;

/** The page about the trace called `file`. */
export function auditPage(report: AuditReport, file: string): string {
  const { error, warning } = countSeverities(report);
  const state = error > 0 ? 'error' : warning > 0 ? 'warning' : 'good';
  const columns = report.runs.flatMap((run) => columnsOf(report, run));
  const page = html`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Exposure audit: ${file}</title>
<style>${new Markup(STYLE)}</style>
</head>
<body>
<header>
<h1>Exposure audit</h1>
<p class="verdict ${state}">${verdict(report)}</p>
<p>${provenance(report, file)}</p>
</header>
<main>
<section aria-labelledby="figures">
<h2 id="figures">Figures</h2>
${figures(columns)}
</section>
${report.runs.map((run, index) => runSection(report, run, index))}
</main>
<script>${new Markup(SCRIPT)}</script>
</body>
</html>
`;
  return page.text;
}

function provenance({ header, isComplete, missing }: AuditReport, file: string): string {
  const whole =
    isComplete && missing === 0 ? '' : ' The trace is not complete: what is missing was not audited.';
  return `${file}, recorded by grantio ${header.version} at ${header.startTime}.${whole}`;
}

function figures(columns: readonly ReportColumn[]): Markup {
  const rows = reportRows(columns).map(
    ({ label, cells }) =>
      html`<tr><th scope="row">${label}</th>${cells.map(
        ({ text, emphasis }) => html`<td class="${emphasis}">${text}</td>`,
      )}</tr>`,
  );
  const heads = columns.map(({ mode }) => html`<th scope="col">${mode}</th>`);
  return html`<div class="wide"><table><thead><tr><td></td>${heads}</tr></thead><tbody>
${rows}
</tbody></table></div>`;
}

function runSection(report: AuditReport, run: AuditedRun, index: number): Markup {
  const { mode, events, duration, findings } = run;
  const list = findings.map((finding, number) => findingArticle(report, run, finding, `f${index}-${number}`));
  return html`<section aria-labelledby="run${index}">
<h2 id="run${index}">Run ${index + 1}: ${mode}</h2>
<p>${countText(events)} events in ${timeText(duration)}</p>
<h3>Findings</h3>
${list.length > 0 ? list : html`<p class="good">none</p>`}
<h3 id="time${index}">Timeline</h3>
${timelineView(run, index)}
<h3 id="map${index}">Page map</h3>
${pageMap(report.header, run, index)}
</section>`;
}

function findingArticle(report: AuditReport, run: AuditedRun, finding: Finding, id: string): Markup {
  const { severity, summary, why, help, id: rule } = auditRule(finding.rule);
  const { subject, extent, owners, requests, examples, stack } = describe(report, run, finding);
  const [first, worst] = examples;
  const parts: [string, string | undefined][] = [
    ['Rule', summary],
    ['Whose bytes', owners],
    ['Made for', requests],
    ['First', first],
    ['Worst', worst],
    ['Why', why],
    ['Help', help],
  ];
  const terms = parts.flatMap(([term, text]) =>
    text === undefined ? [] : [html`<dt>${term}</dt><dd>${text}</dd>`],
  );
  const trail = stack === undefined ? undefined : html`<dt>Stack</dt><dd><pre>${stack}</pre></dd>`;
  return html`<details class="finding ${severity}" id="${id}">
<summary><strong>${severity}: ${rule}</strong> ${subject}: ${extent}</summary>
<dl>
${terms}
${trail}
</dl>
</details>`;
}
