// A table of text in a box: labels on the left, numbers right-aligned, as many columns side by side as the
// width allows. Used by report.ts.

/** How a cell is to be seen. */
type Emphasis = 'plain' | 'good' | 'bad';

export interface Cell {
  readonly text: string;
  readonly emphasis: Emphasis;
}

export interface TableRow {
  readonly label: string;
  /** One for each column. */
  readonly cells: readonly Cell[];
}

export interface TableOptions {
  /** Whether to use terminal colours. */
  readonly colour: boolean;
  /** Characters a line may have. */
  readonly width: number;
}

/** Labels are wrapped before they get narrower than this. */
const LEAST_LABEL = 20;
const STYLES: { readonly [E in Emphasis]: string } = { plain: '', good: '\x1b[32m', bad: '\x1b[31m' };
const BOLD = '\x1b[1m';
const RESET = '\x1b[0m';

/** Breaks text into lines of at most `width` characters, at spaces; a longer word has a line of its own. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = '';
    }
    line = line === '' ? word : `${line} ${word}`;
  }
  return [...lines, line];
}

/** Draws the table; columns that do not fit beside the others follow in tables below. */
export function table(headings: readonly string[], rows: readonly TableRow[], options: TableOptions): string {
  const widths = headings.map((heading, column) =>
    Math.max(heading.length, ...rows.map(({ cells }) => cells[column].text.length)),
  );
  const wanted = Math.max(0, ...rows.map(({ label }) => label.length));
  const besides = widths.reduce((sum, width) => sum + width + 3, 4);
  const labelWidth = Math.min(wanted, Math.max(LEAST_LABEL, options.width - besides));
  const boxes: string[] = [];
  for (let first = 0; first < headings.length; ) {
    const last = fitting(widths, first, options.width - labelWidth - 4);
    const part = rows.map(({ label, cells }) => ({ label, cells: cells.slice(first, last) }));
    const columns = [labelWidth, ...widths.slice(first, last)];
    boxes.push(box(columns, headings.slice(first, last), part, options.colour));
    first = last;
  }
  return boxes.join('\n');
}

/** End of the columns from `first` on, one at least, that find room in `room` characters. */
function fitting(widths: readonly number[], first: number, room: number): number {
  let last = first + 1;
  for (let used = widths[first] + 3; last < widths.length; last++) {
    used += widths[last] + 3;
    if (used > room) break;
  }
  return last;
}

/** One box; `widths` are those of the labels and of the columns. */
function box(
  widths: readonly number[],
  headings: readonly string[],
  rows: readonly TableRow[],
  colour: boolean,
): string {
  const rule = (left: string, middle: string, right: string) =>
    left + widths.map((width) => '─'.repeat(width + 2)).join(middle) + right;
  const line = (cells: readonly string[]) => `│ ${cells.join(' │ ')} │`;
  const right = (text: string, column: number, style: string) => {
    const padded = text.padStart(widths[column + 1]);
    return colour && style !== '' ? `${style}${padded}${RESET}` : padded;
  };
  const rowLines = ({ label, cells }: TableRow) =>
    wrap(label, widths[0]).map((part, at, parts) => {
      const isLast = at === parts.length - 1;
      const values = cells.map(({ text, emphasis }, column) =>
        isLast ? right(text, column, STYLES[emphasis]) : right('', column, ''),
      );
      return line([part.padEnd(widths[0]), ...values]);
    });
  return [
    rule('┌', '┬', '┐'),
    line([' '.repeat(widths[0]), ...headings.map((heading, column) => right(heading, column, BOLD))]),
    rule('├', '┼', '┤'),
    ...rows.flatMap(rowLines),
    rule('└', '┴', '┘'),
  ].join('\n');
}
