// A guest's output as text that is safe to show: no terminal obeys it (case D9). Used by console-log.ts.

const NEWLINE = 0x0a;
const RETURN = 0x0d;
const TAB = 0x09;
const DELETE = 0x7f;
const CARET = 0x5e;
/** In UTF-8, the first byte of U+0080 to U+00BF, of which those up to U+009F are controls as well. */
const C1_LEAD = 0xc2;
const C1_LAST = 0x9f;
const QUESTION_MARK = 0x3f;

/** A filter for one stream of bytes, however it is cut into pieces. */
export class VisibleText {
  #last = 0;

  /**
   * Control characters in the way of `cat -v` (ESC is ^[), but for newlines and tabs; a return before a newline is
   * left out. Everything else is as it was, also what is no UTF-8.
   *
   * @returns at most two bytes for each of `bytes`, and two more
   */
  filter(bytes: Uint8Array): Uint8Array {
    const out: number[] = [];
    for (const byte of bytes) {
      if (this.#last === RETURN && byte !== NEWLINE) out.push(CARET, RETURN ^ 0x40);
      if (byte === NEWLINE || byte === TAB) out.push(byte);
      else if (byte < 0x20 || byte === DELETE) {
        if (byte !== RETURN) out.push(CARET, byte ^ 0x40);
      } else if (this.#last === C1_LEAD && byte >= 0x80 && byte <= C1_LAST) out.push(QUESTION_MARK);
      else out.push(byte);
      this.#last = byte;
    }
    return Uint8Array.from(out);
  }
}
