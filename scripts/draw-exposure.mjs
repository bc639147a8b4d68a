// Draws docs/exposure.svg: byte for byte, the pages that the first block read of each device in a trace
// granted, and what of them the request needed. A square is a page, 64 rows of 64 bytes.
//   truncate -s 4096 one.img && grantio run --disk one.img,ro --trace t.json
//   node scripts/draw-exposure.mjs t.json > docs/exposure.svg
import { readFileSync } from 'node:fs';

const PAGE = 4096;
const ROW = 64;
const BYTE = 4;
const SIDE = ROW * BYTE;
const LEFT = 24;
const TOP = 104;
const GAP = 32;
const BAND = SIDE + 84;
const COLOURS = { needed: '#0072b2', private: '#e4e4e4', readable: '#f0c05a', writable: '#d55e00' };
const LEGEND = [
  ['needed', 'bytes of the request'],
  ['readable', 'foreign bytes: the backend can read them'],
  ['private', 'zeroes in a page of the pool'],
  ['writable', 'foreign bytes: the backend can read and overwrite them'],
];
/** The buffers of a block read in their order (virtio 1.3 §5.2.6). */
const BUFFERS = ['request header', 'data', 'status byte'];

const path = process.argv[2];
if (path === undefined) {
  console.error('usage: node scripts/draw-exposure.mjs TRACE > docs/exposure.svg');
  process.exit(2);
}
const lines = readFileSync(path, 'utf8').split('\n');
const { devices } = JSON.parse(lines[0].slice(1)).args;
const events = lines
  .slice(1)
  .filter((line) => line.startsWith(',{'))
  .map((line) => JSON.parse(line.slice(1)).args)
  .filter(({ kind }) => kind !== undefined);

/** The pages that the first request of `device` granted, as they were when each grant was opened. */
function pagesOf(device) {
  const privateFrames = new Set();
  const grants = new Map();
  const needs = [];
  const pages = [];
  let isOpen = false;
  for (const event of events) {
    if (event.device === device && event.kind === 'requestBegin') isOpen = true;
    if (event.device === device && event.kind === 'requestEnd') break;
    if (event.device === device && event.kind === 'privatePages')
      for (let page = 0; page < event.count; page++) privateFrames.add(event.frame + page);
    if (!isOpen) continue;
    if (event.kind === 'grant') grants.set(event.ref, event);
    if (event.kind !== 'need' || event.device !== device) continue;
    const { frame, readonly } = grants.get(event.ref);
    needs.push({ frame, start: event.offset, end: event.offset + event.size });
    const runs = needs.filter((need) => need.frame === frame).map(({ start, end }) => [start, end]);
    const rest = privateFrames.has(frame) ? 'private' : readonly ? 'readable' : 'writable';
    pages.push({ name: BUFFERS[pages.length], size: event.size, readonly, rest, runs });
  }
  return pages;
}

/** Bytes `start` to `end` of a page whose square has its corner at x, y: one rectangle for each row touched. */
function drawRun(x, y, start, end, colour) {
  const parts = [];
  for (let at = start; at < end; ) {
    const row = Math.floor(at / ROW);
    // Whole rows go into one rectangle.
    const rows = at % ROW === 0 ? Math.max(Math.floor((end - at) / ROW), 1) : 1;
    const length = Math.min(rows * ROW - (at % ROW), end - at);
    parts.push(
      `<rect x="${x + (at % ROW) * BYTE}" y="${y + row * BYTE}" width="${Math.min(length, ROW) * BYTE}" height="${rows * BYTE}" fill="${colour}"/>`,
    );
    at += length;
  }
  return parts.join('');
}

function text(x, y, words, more = '') {
  return `<text x="${x}" y="${y}"${more}>${words}</text>`;
}

function drawPage({ name, size, readonly, rest, runs }, x, y) {
  const needed = runs.reduce((sum, [start, end]) => sum + end - start, 0);
  const foreign = rest === 'private' ? 0 : PAGE - needed;
  const bytes = `${size.toLocaleString('en')} ${size === 1 ? 'byte' : 'bytes'}`;
  return [
    `<rect x="${x}" y="${y}" width="${SIDE}" height="${SIDE}" fill="${COLOURS[rest]}"/>`,
    ...runs.map(([start, end]) => drawRun(x, y, start, end, COLOURS.needed)),
    text(x, y + SIDE + 20, `${name}, ${bytes}, ${readonly ? 'read-only' : 'writable'}`),
    text(x, y + SIDE + 38, `${foreign.toLocaleString('en')} foreign bytes`, ' font-weight="bold"'),
  ].join('\n');
}

const width = LEFT * 2 + BUFFERS.length * SIDE + (BUFFERS.length - 1) * GAP;
const height = TOP + devices.length * BAND;
const bands = devices.map(({ device, name, mode }, index) => {
  const y = TOP + index * BAND;
  const pages = pagesOf(device).map((page, column) => drawPage(page, LEFT + column * (SIDE + GAP), y));
  return [text(LEFT, y - 10, `${name} ${mode}`, ' font-size="16" font-weight="bold"'), ...pages].join('\n');
});
const legend = LEGEND.map(([colour, words], index) => {
  const x = LEFT + (index % 2) * (SIDE + GAP);
  const y = 18 + Math.floor(index / 2) * 24;
  return `<rect x="${x}" y="${y}" width="14" height="14" fill="${COLOURS[colour]}"/>${text(x + 20, y + 12, words)}`;
});
process.stdout.write(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="13" fill="#222">
<title>The pages that one block read of 4096 bytes grants, byte for byte, in each exposure mode</title>
<rect width="${width}" height="${height}" fill="#fff"/>
${legend.join('\n')}
${bands.join('\n')}
</svg>
`);
