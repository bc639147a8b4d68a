// A page of text that is drawn over and over on a terminal, and leaves it as it was. Each frame is one write, line over
// line, so that nothing flickers. Used by top.ts.

/** What is needed of a terminal. */
export interface Terminal {
  readonly columns: number;
  readonly rows: number;
  write(text: string): void;
}

/** The other page of the terminal, without a cursor and with lines cut at the edge. */
const ENTER = '\x1b[?1049h\x1b[?25l\x1b[?7l';
const LEAVE = '\x1b[?7h\x1b[?25h\x1b[?1049l';
/** Terminals that know it show a frame when it is whole; others ignore it. */
const BEGIN_FRAME = '\x1b[?2026h\x1b[H';
const END_FRAME = '\x1b[J\x1b[?2026l';
const END_LINE = '\x1b[K';

/** A terminal's other page. */
export class Screen {
  readonly #terminal: Terminal;
  #isOpen = false;

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
  }

  open(): void {
    this.#isOpen = true;
    this.#terminal.write(ENTER);
  }

  /** Shows this text from the top left corner on, as much of it as there are lines. */
  draw(text: string): void {
    if (!this.#isOpen) return;
    const lines = text.split('\n');
    const room = Math.max(this.#terminal.rows, 1);
    const shown = lines.length <= room ? lines : [...lines.slice(0, room - 1), '…'];
    this.#terminal.write(`${BEGIN_FRAME}${shown.map((line) => line + END_LINE).join('\r\n')}${END_FRAME}`);
  }

  /** Gives the terminal back; a second call does nothing. */
  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#terminal.write(LEAVE);
  }
}
