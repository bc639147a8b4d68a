// The timeline of a run as a picture, with a table that says the same: what was exposed and what was needed in
// each step of time, and below it a row for each rule that was broken, with a mark for each step. After page.ts.

import type { AuditedRun } from '../audit.ts';
import { type AuditRuleId, auditRule } from '../audit-rules.ts';
import type { TimelineStep } from '../timeline.ts';
import { bytesText, timeText } from '../units.ts';
import { html, type Markup } from './markup.ts';

const LEFT = 160;
const WIDTH = 800;
const TOP = 10;
const HEIGHT = 160;
/** Height of a row of marks. */
const ROW = 22;

/** The picture and the table. */
export function timelineView(run: AuditedRun, index: number): Markup {
  const { steps, width } = run.timeline;
  if (steps.length === 0) return html`<p>The trace has no events.</p>`;
  const rules = [...new Set(run.findings.map(({ rule }) => rule))].filter((rule) =>
    steps.some(({ broken }) => broken.has(rule)),
  );
  const bottom = TOP + HEIGHT;
  const most = Math.max(1, ...steps.map(({ exposed, needed }) => Math.max(exposed, needed)));
  const height = bottom + 24 + rules.length * ROW;
  const target = (rule: AuditRuleId) => `#f${index}-${run.findings.findIndex((each) => each.rule === rule)}`;
  return html`<figure>
<svg viewBox="0 0 ${LEFT + WIDTH + 10} ${height}" role="group" tabindex="0" aria-labelledby="time${index}" data-view="say-time${index}">
<path class="exposed" d="${area(steps, most, (step) => step.exposed)}"/>
<path class="needed" d="${area(steps, most, (step) => step.needed)}"/>
<path class="axis" d="M${LEFT} ${TOP}V${bottom}H${LEFT + WIDTH}"/>
<text x="${LEFT - 6}" y="${TOP + 10}" text-anchor="end">${bytesText(most)}</text>
<text x="${LEFT - 6}" y="${bottom}" text-anchor="end">0 B</text>
<text x="${LEFT}" y="${bottom + 16}">0</text>
<text x="${LEFT + WIDTH}" y="${bottom + 16}" text-anchor="end">${timeText(steps.length * width)}</text>
${steps.map((step, at) => column(step, at, steps.length, width))}
${rules.map((rule, row) => markRow(rule, target(rule), steps, width, bottom + 24 + row * ROW))}
</svg>
<p class="legend"><span class="key exposed"></span> exposed <span class="key needed"></span> needed by drivers;
marks: where a rule was broken, each a link to its finding. Arrow keys go from step to step.</p>
<p class="say" id="say-time${index}" aria-live="polite">Point at a step to read it.</p>
${stepTable(steps, width)}
</figure>`;
}

/** Steps as an area; most of it is one path, so that a step costs a few characters. */
function area(steps: readonly TimelineStep[], most: number, value: (step: TimelineStep) => number): string {
  const step = WIDTH / steps.length;
  const y = (bytes: number) => (TOP + HEIGHT - (bytes / most) * HEIGHT).toFixed(1);
  const tops = steps.map((each, at) => `V${y(value(each))}H${(LEFT + (at + 1) * step).toFixed(1)}`);
  return `M${LEFT} ${TOP + HEIGHT}${tops.join('')}V${TOP + HEIGHT}Z`;
}

/** What the pointer finds over a step. */
function column(step: TimelineStep, at: number, count: number, width: number): Markup {
  const x = (LEFT + (at * WIDTH) / count).toFixed(1);
  return html`<rect class="step" x="${x}" y="${TOP}" width="${(WIDTH / count).toFixed(1)}" height="${HEIGHT}" data-say="${stepText(step, at, width)}"/>`;
}

function markRow(
  rule: AuditRuleId,
  target: string,
  steps: readonly TimelineStep[],
  width: number,
  y: number,
): Markup {
  const { severity } = auditRule(rule);
  const step = WIDTH / steps.length;
  const marks = steps.flatMap(({ broken }, at) => {
    const count = broken.get(rule);
    if (count === undefined) return [];
    const x = (LEFT + at * step).toFixed(1);
    return [
      html`<rect class="mark ${severity}" x="${x}" y="${y + 4}" width="${Math.max(2, step - 0.5).toFixed(1)}" height="${ROW - 8}" data-say="${`${span(at, width)}: ${rule}, ${count} times`}"/>`,
    ];
  });
  return html`<a href="${target}"><text x="${LEFT - 6}" y="${y + 15}" text-anchor="end">${rule}</text>
${marks}</a>`;
}

function span(at: number, width: number): string {
  return `${timeText(at * width)} to ${timeText((at + 1) * width)}`;
}

function stepText(step: TimelineStep, at: number, width: number): string {
  return `${span(at, width)}: ${bytesText(step.exposed)} exposed, ${bytesText(step.needed)} needed at most`;
}

function brokenText({ broken }: TimelineStep): string {
  return [...broken].map(([rule, count]) => `${rule} × ${count.toLocaleString('en')}`).join(', ');
}

function stepTable(steps: readonly TimelineStep[], width: number): Markup {
  const rows = steps.map(
    (step, at) =>
      html`<tr><th scope="row">${span(at, width)}</th><td>${bytesText(step.exposed)}</td><td>${bytesText(step.needed)}</td><td>${brokenText(step)}</td></tr>`,
  );
  return html`<details><summary>The timeline as a table</summary>
<div class="wide"><table><thead><tr><th scope="col">time</th><th scope="col">exposed, at most</th><th scope="col">needed, at most</th><th scope="col">rules broken</th></tr></thead><tbody>
${rows}
</tbody></table></div></details>`;
}
