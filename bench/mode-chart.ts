// The chart of the exposure modes, as SVG: how fast each is against how much the backend could reach.

/** What a mode came to. */
export interface ModePoint {
  readonly mode: string;
  readonly requestsPerSecond: number;
  /** Bytes that the backend could reach for each byte that was shared with it, both over time. */
  readonly exposedPerNeeded: number;
  /** Bytes that it could read and that were not the device's, for each request. */
  readonly foreignPerRequest: number;
}

const WIDTH = 880;
const HEIGHT = 450;
/** Room of a mark's two lines of text. */
const LABEL = { width: 150, height: 34 };
const PLOT = { left: 92, right: WIDTH - 190, top: 58, bottom: HEIGHT - 64 };

/** A linear axis with about five steps of 1, 2 or 5 times a power of ten. */
class Axis {
  readonly ticks: number[] = [];
  readonly #from: number;
  readonly #to: number;
  readonly #start: number;
  readonly #end: number;

  /** @param from the least value, shown at `start` in the picture; @param most the greatest, short of `end` */
  constructor(from: number, most: number, start: number, end: number) {
    const rough = (most - from) / 5;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough)!;
    this.#from = from;
    this.#to = from + step * (Math.floor((most - from) / step) + 1);
    this.#start = start;
    this.#end = end;
    for (let count = 0; from + count * step <= this.#to + step / 2; count++)
      this.ticks.push(from + count * step);
  }

  at(value: number): number {
    const share = (value - this.#from) / (this.#to - this.#from);
    return Math.round(this.#start + share * (this.#end - this.#start));
  }
}

function text(x: number, y: number, content: string, more = ''): string {
  return `<text x="${x}" y="${y}"${more && ` ${more}`}>${content}</text>\n`;
}

/** Draws one mark for each mode; those that expose foreign bytes are of another colour and shape. */
export function drawModeChart(points: readonly ModePoint[], job: string): string {
  const mostExposed = Math.max(...points.map(({ exposedPerNeeded }) => exposedPerNeeded));
  const mostSpeed = Math.max(...points.map(({ requestsPerSecond }) => requestsPerSecond));
  const exposure = new Axis(1, mostExposed, PLOT.left, PLOT.right);
  const speed = new Axis(0, mostSpeed / 1000, PLOT.bottom, PLOT.top);
  let svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="13" fill="#222">\n`;
  svg += '<title>Exposure modes: speed against what the backend could reach</title>\n';
  svg += `<rect width="${WIDTH}" height="${HEIGHT}" fill="#fff"/>\n`;
  svg += text(PLOT.left, 30, job, 'font-weight="bold"');
  for (const value of speed.ticks) {
    const y = speed.at(value);
    svg += `<path d="M${PLOT.left} ${y}H${PLOT.right}" stroke="#ddd"/>\n`;
    svg += text(PLOT.left - 8, y + 4, `${value}`, 'text-anchor="end"');
  }
  for (const value of exposure.ticks) {
    const x = exposure.at(value);
    svg += `<path d="M${x} ${PLOT.top}V${PLOT.bottom}" stroke="#ddd"/>\n`;
    svg += text(x, PLOT.bottom + 20, `${+value.toFixed(2)} ×`, 'text-anchor="middle"');
  }
  const [middleX, middleY] = [(PLOT.left + PLOT.right) / 2, (PLOT.top + PLOT.bottom) / 2];
  svg += text(middleX, PLOT.bottom + 44, 'exposed for each byte needed, over time', 'text-anchor="middle"');
  svg += `<text transform="translate(28 ${middleY}) rotate(-90)" text-anchor="middle">thousand requests a second</text>\n`;
  const places = points.map((point) => ({
    point,
    x: exposure.at(point.exposedPerNeeded),
    y: speed.at(point.requestsPerSecond / 1000),
  }));
  const labels: { x: number; y: number }[] = [];
  for (const { point, x, y } of places.toSorted((a, b) => a.y - b.y)) {
    const near = labels.filter((label) => Math.abs(label.x - x) < LABEL.width);
    const label = Math.max(y, ...near.map((other) => other.y + LABEL.height));
    labels.push({ x, y: label });
    svg += mark(point, x, y, label);
  }
  return `${svg}</svg>\n`;
}

/** A mark at x, y, with its label at height `label`. */
function mark({ mode, foreignPerRequest }: ModePoint, x: number, y: number, label: number): string {
  const clean = foreignPerRequest === 0;
  const shape = clean
    ? `<circle cx="${x}" cy="${y}" r="7" fill="#0072b2"/>\n`
    : `<path d="M${x - 8} ${y + 7}h16l-8 -15z" fill="#d55e00"/>\n`;
  const foreign = clean ? 'no foreign bytes' : `${Math.round(foreignPerRequest)} foreign bytes a request`;
  return (
    shape +
    text(x + 13, label + 1, mode, 'font-weight="bold"') +
    text(x + 13, label + 15, foreign, 'font-size="11"')
  );
}
