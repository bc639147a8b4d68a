// What the museum prints: a table for people, or one JSON document. After museum.ts.

import { wrap } from '../src/audit/table.ts';
import type { Visit } from './museum.ts';

/** Characters of a line where there is no terminal. */
const WIDTH = 150;
/** Below this, the columns of sentences are too narrow to be read. */
const LEAST_SENTENCE = 24;
const GAP = '  ';

const HEADINGS = ['exhibit', 'what was wrong', 'file with the defect', 'caught by', 's'];
/** The columns that are wrapped; the others are as wide as their longest text. */
const SENTENCES = [1, 3];

/** All visits as a table, and a last line with the sum. */
export function visitTable(visits: readonly Visit[], seconds: number, width = WIDTH): string {
  const rows = visits.map(cellsOf);
  const widths = columnWidths([HEADINGS, ...rows], width);
  const lines = [HEADINGS, ...rows].flatMap((cells) => drawRow(cells, widths));
  lines.splice(1, 0, widths.map((count) => '─'.repeat(count)).join(GAP));
  return [...lines, '', summary(visits, seconds)].join('\n');
}

/** The same for programs. */
export function visitJson(visits: readonly Visit[], seconds: number): string {
  const documents = visits.map(({ exhibit: { id, also = [], what, file }, outcome, by, seconds: taken }) => ({
    id,
    also,
    what,
    file,
    outcome,
    by,
    seconds: round(taken),
  }));
  return JSON.stringify({ exhibits: documents, seconds: round(seconds) }, undefined, 2);
}

function summary(visits: readonly Visit[], seconds: number): string {
  const caught = visits.filter(({ outcome }) => outcome === 'caught').length;
  return `${caught} of ${visits.length} defects caught, ${seconds.toFixed(0)} s`;
}

function cellsOf({ exhibit, outcome, by, seconds }: Visit): string[] {
  return [
    exhibit.id,
    exhibit.what,
    exhibit.file.replace(/^src\//, ''),
    outcome === 'caught' ? by : `${outcome.toUpperCase()}: ${by}`,
    seconds.toFixed(1),
  ];
}

/** What the short columns leave of the line is shared by the sentences. */
function columnWidths(rows: readonly (readonly string[])[], width: number): number[] {
  const widths = HEADINGS.map((_, column) => Math.max(...rows.map((cells) => cells[column].length)));
  const short = widths.reduce((sum, count, column) => (SENTENCES.includes(column) ? sum : sum + count), 0);
  const room = width - short - GAP.length * (HEADINGS.length - 1);
  const sentence = Math.max(LEAST_SENTENCE, Math.floor(room / SENTENCES.length));
  return widths.map((count, column) => (SENTENCES.includes(column) ? Math.min(count, sentence) : count));
}

function drawRow(cells: readonly string[], widths: readonly number[]): string[] {
  const columns = cells.map((text, column) => wrap(text, widths[column]));
  const height = Math.max(...columns.map((lines) => lines.length));
  return Array.from({ length: height }, (_, line) =>
    columns
      .map((lines, column) => (lines[line] ?? '').padEnd(widths[column]))
      .join(GAP)
      .trimEnd(),
  );
}

function round(seconds: number): number {
  return Math.round(seconds * 10) / 10;
}
