// The page map of a run as a picture, with a table that says the same: the guest's frames as a grid, each in
// the colour of the worst that happened to it. A large guest has several frames in a cell. After page.ts.

import type { AuditedFrame, AuditedRun } from '../audit.ts';
import { deviceName } from '../audit-words.ts';
import type { TraceHeader } from '../trace-file.ts';
import { bytesText, countText } from '../units.ts';
import { html, type Markup } from './markup.ts';

const COLUMNS = 64;
/** Rows at most: with more, a cell stands for more frames. */
const MAX_ROWS = 64;
/** Rows of the table at most. */
const MAX_LISTED = 500;
const CELL = 13;
const LEFT = 120;

/** What the worst was that happened to a frame: the least severe first. Also the names of the colours. */
const STATES = ['unnamed', 'private', 'needed', 'foreign-readable', 'foreign-writable'] as const;
type State = (typeof STATES)[number];

const MEANINGS: Readonly<Record<State, string>> = {
  unnamed: 'granted, and no buffer named it',
  private: 'private to its device',
  needed: 'all of what was granted was needed',
  'foreign-readable': 'bytes beside the buffers could be read',
  'foreign-writable': 'bytes beside the buffers could be read and overwritten',
};

/** The picture and the table. */
export function pageMap(header: TraceHeader, run: AuditedRun, index: number): Markup {
  const { frames, framesLeft, reached } = run;
  const everywhere = reached.map(
    ({ domain, mapper, frame, count }) =>
      html`<p class="bad">Domain ${mapper} could reach ${countText(count)} frames of domain ${domain} from ${hex(frame)} on without any grant.</p>`,
  );
  const left =
    framesLeft > 0
      ? html`<p class="bad">${countText(framesLeft)} grants of further frames are not shown.</p>`
      : undefined;
  if (frames.length === 0) return html`${everywhere}<p>No frame was granted.</p>`;
  const domains = [...new Set(frames.map(({ domain }) => domain))];
  const grids = domains.map((domain) =>
    grid(
      header,
      frames.filter((frame) => frame.domain === domain),
      `${index}-${domain}`,
    ),
  );
  return html`${everywhere}${left}${legend(frames)}${grids}${frameTable(header, frames)}`;
}

function stateOf({ foreignReadable, foreignWritable, devices, isPrivate }: AuditedFrame): State {
  if (foreignWritable > 0) return 'foreign-writable';
  if (foreignReadable > 0) return 'foreign-readable';
  if (devices.length === 0) return 'unnamed';
  return isPrivate ? 'private' : 'needed';
}

function legend(frames: readonly AuditedFrame[]): Markup {
  const keys = STATES.map((state) => {
    const count = frames.filter((frame) => stateOf(frame) === state).length;
    return html`<li><span class="key ${state}"></span> ${MEANINGS[state]}: ${countText(count)}</li>`;
  });
  return html`<ul class="legend">${keys}<li><span class="key never"></span> never granted</li></ul>`;
}

/** Frames of a cell, by the number of the cell. */
type Cells = ReadonlyMap<number, readonly AuditedFrame[]>;

/** The smallest cells with which the rows that hold anything are few enough. */
function cellsOf(frames: readonly AuditedFrame[]): { readonly size: number; readonly cells: Cells } {
  for (let size = 1; ; size *= 2) {
    const rows = new Set(frames.map(({ frame }) => Math.floor(frame / (size * COLUMNS))));
    if (rows.size > MAX_ROWS) continue;
    return { size, cells: byCell(frames, size) };
  }
}

function byCell(frames: readonly AuditedFrame[], size: number): Cells {
  const cells = new Map<number, AuditedFrame[]>();
  for (const frame of frames) {
    const cell = Math.floor(frame.frame / size);
    const found = cells.get(cell);
    if (found === undefined) cells.set(cell, [frame]);
    else found.push(frame);
  }
  return cells;
}

function grid(header: TraceHeader, frames: readonly AuditedFrame[], id: string): Markup {
  const { size, cells } = cellsOf(frames);
  const rows = [...new Set([...cells.keys()].map((cell) => Math.floor(cell / COLUMNS)))];
  const height = rows.length * CELL + 4;
  const caption = `Frames of domain ${frames[0].domain}, ${COLUMNS} cells a row, ${size} of 4 KiB in a cell`;
  return html`<figure>
<figcaption id="cap${id}">${caption}. Rows in which nothing was granted are left out.</figcaption>
<svg viewBox="0 0 ${LEFT + COLUMNS * CELL} ${height}" role="group" tabindex="0" aria-labelledby="cap${id}" data-view="say${id}">
${rows.map((row, at) => gridRow(header, cells, size, row, at * CELL))}
</svg>
<p class="say" id="say${id}" aria-live="polite">Point at a cell to read it; arrow keys go from cell to cell.</p>
</figure>`;
}

function gridRow(header: TraceHeader, cells: Cells, size: number, row: number, y: number): Markup {
  const drawn: Markup[] = [];
  for (let column = 0; column < COLUMNS; column++) {
    const frames = cells.get(row * COLUMNS + column);
    if (frames === undefined) continue;
    drawn.push(
      html`<rect class="${worstOf(frames)}" x="${LEFT + column * CELL}" y="${y + 1}" width="${CELL - 1}" height="${CELL - 1}" data-say="${cellText(header, frames)}"/>`,
    );
  }
  return html`<text x="${LEFT - 8}" y="${y + CELL - 2}" text-anchor="end">${hex(row * COLUMNS * size)}</text>
<rect class="never" x="${LEFT}" y="${y + 1}" width="${COLUMNS * CELL - 1}" height="${CELL - 1}"/>
${drawn}`;
}

function worstOf(frames: readonly AuditedFrame[]): State {
  return STATES[Math.max(...frames.map((frame) => STATES.indexOf(stateOf(frame))))];
}

function cellText(header: TraceHeader, frames: readonly AuditedFrame[]): string {
  if (frames.length === 1) return frameText(header, frames[0]);
  const grants = frames.reduce((sum, frame) => sum + frame.grants, 0);
  const last = frames[frames.length - 1].frame;
  return `frames ${hex(frames[0].frame)} to ${hex(last)}: ${frames.length} were granted, ${countText(grants)} times; at worst: ${MEANINGS[worstOf(frames)]}`;
}

function frameText(header: TraceHeader, frame: AuditedFrame): string {
  const { grants, ref, peer, exposed, foreignReadable, foreignWritable } = frame;
  const parts = [
    `frame ${hex(frame.frame)}: ${MEANINGS[stateOf(frame)]}`,
    `owner ${ownerText(header, frame)}`,
    `granted ${grants === 1 ? 'once' : `${countText(grants)} times`}, last through reference ${ref} to domain ${peer}`,
    `${bytesText(exposed)} exposed at most, ${rightText(frame)}`,
  ];
  if (foreignReadable > 0)
    parts.push(`${bytesText(foreignReadable)} foreign, ${bytesText(foreignWritable)} of it writable`);
  return parts.join('; ');
}

function ownerText(header: TraceHeader, { domain, devices }: AuditedFrame): string {
  if (devices.length === 0) return 'unknown';
  return devices.map((device) => deviceName(header, domain, device)).join(' and ');
}

function rightText({ isWritable }: AuditedFrame): string {
  return isWritable ? 'readable and writable' : 'readable';
}

function frameTable(header: TraceHeader, frames: readonly AuditedFrame[]): Markup {
  // The worst first: what does not fit is what matters least.
  const worst = frames.toSorted((a, b) => STATES.indexOf(stateOf(b)) - STATES.indexOf(stateOf(a)));
  const rows = worst.slice(0, MAX_LISTED).map((frame) => {
    const { grants, ref, exposed, foreignReadable, foreignWritable } = frame;
    return html`<tr><th scope="row">${hex(frame.frame)}</th><td>${ownerText(header, frame)}</td><td>${MEANINGS[stateOf(frame)]}</td><td>${grants}</td><td>${ref}</td><td>${rightText(frame)}</td><td>${exposed}</td><td>${foreignReadable}</td><td>${foreignWritable}</td></tr>`;
  });
  const heads = [
    'frame',
    'owner',
    'what happened',
    'grants',
    'last reference',
    'right',
    'exposed',
    'foreign',
    'writable',
  ];
  const rest = frames.length - rows.length;
  const more = rest > 0 ? html`<p>${countText(rest)} further frames are not listed.</p>` : undefined;
  return html`<details><summary>The page map as a table, the worst first</summary>
<div class="wide"><table><thead><tr>${heads.map((head) => html`<th scope="col">${head}</th>`)}</tr></thead><tbody>
${rows}
</tbody></table></div>${more}</details>`;
}

function hex(frame: number): string {
  return `0x${frame.toString(16)}`;
}
