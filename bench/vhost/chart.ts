// The chart of docs/speed.md, as SVG: IOPS of each backend at the jobs of the aims, in relation to
// qemu-storage-daemon with io_uring. After comparison.ts.

import type { Line, Row } from './comparison.ts';

const WIDTH = 880;
const PLOT = { left: 232, right: WIDTH - 64, top: 84 };
const BAR = 14;
const GAP = 16;

/** Colours that people with any kind of colour vision tell apart. */
const COLOURS: Readonly<Record<string, string>> = {
  qemu: '#999999',
  'qemu-default': '#cccccc',
  twin: '#e69f00',
  grantio: '#0072b2',
  'grantio-mapped': '#56b4e9',
  'grantio-no-polling': '#009e73',
};

/** Draws a group of bars for each row, all on one linear axis from 0 on. */
export function drawSpeedChart(rows: readonly Row[], caption: string): string {
  const shown = rows.map(({ name, lines }) => ({
    name,
    lines: lines.filter(({ ratios }) => ratios.qemu !== undefined),
  }));
  const most = Math.max(1, ...shown.flatMap(({ lines }) => lines.map(({ ratios }) => ratios.qemu!)));
  const scale = (PLOT.right - PLOT.left) / most;
  let body = '';
  let y = PLOT.top;
  for (const { name, lines } of shown) {
    body += groupLabel(name, y + (lines.length * BAR) / 2);
    for (const line of lines) {
      body += bar(line, y, scale);
      y += BAR;
    }
    y += GAP;
  }
  const one = Math.round(PLOT.left + scale);
  const rule = `<path d="M${one} ${PLOT.top - 6}V${y - GAP + 6}" stroke="#222" stroke-dasharray="3 3"/>\n`;
  return frame(y, caption, legend(shown.flatMap(({ lines }) => lines)) + rule + body);
}

function frame(height: number, caption: string, body: string): string {
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="12" fill="#222">\n` +
    '<title>IOPS of vhost-user-blk backends in relation to qemu-storage-daemon with io_uring</title>\n' +
    `<rect width="${WIDTH}" height="${height}" fill="#fff"/>\n` +
    `<text x="16" y="26" font-weight="bold">${caption}</text>\n${body}</svg>\n`
  );
}

/** The job's name on two lines: what, and how. */
function groupLabel(name: string, middle: number): string {
  const [what, depth, ...how] = name.split(', ');
  const at = (y: number, text: string, more = ''): string =>
    `<text x="${PLOT.left - 10}" y="${Math.round(y)}" text-anchor="end"${more}>${text}</text>\n`;
  return at(middle - 2, `${what}, ${depth}`) + at(middle + 12, how.join(', '), ' font-size="10"');
}

function bar({ backend, ratios }: Line, y: number, scale: number): string {
  const width = Math.round(ratios.qemu! * scale);
  return (
    `<rect x="${PLOT.left}" y="${y}" width="${width}" height="${BAR - 2}" fill="${COLOURS[backend]}"/>\n` +
    `<text x="${PLOT.left + width + 5}" y="${y + BAR - 4}" font-size="11">${ratios.qemu!.toFixed(2)}</text>\n`
  );
}

/** One entry for each backend, in the order they first appear. */
function legend(lines: readonly Line[]): string {
  const names = new Map(lines.map(({ backend, name }) => [backend, name]));
  return [...names]
    .map(([backend, name], i) => {
      const x = 16 + (i % 3) * 286;
      const y = 42 + Math.floor(i / 3) * 18;
      return `<rect x="${x}" y="${y}" width="11" height="11" fill="${COLOURS[backend]}"/>\n<text x="${x + 17}" y="${y + 10}">${name}</text>\n`;
    })
    .join('');
}
