// What the museum shows: a defect that was found in somebody else's code, as a small change of ours that makes
// our code have it, and the tests that must notice. Exhibits are in exhibits/, museum.ts shows them.

/** One defect. */
export interface Exhibit {
  /** Its advisory or name, and after a slash which form of it this is: `XSA-155/descriptor`. */
  readonly id: string;
  /** Other advisories of the same kind. */
  readonly also?: readonly string[];
  /** What was wrong there, in one sentence. */
  readonly what: string;
  /** The source file that is changed, from the root of the repository. */
  readonly file: string;
  /** Text that stands exactly once in the file. */
  readonly find: string;
  /** What stands there instead when the file has the defect. */
  readonly replace: string;
  /** Test files, one of which must fail; narrow ones, for each visitor waits for them. */
  readonly tests: readonly string[];
  /** Only the tests whose titles match. */
  readonly titles?: RegExp;
  /** What the failing test's error says, where that is not an assertion but an exception of the code. */
  readonly error?: string;
  /** The defect is a loop without end: a test that does not finish has caught it. */
  readonly hangs?: true;
}

/** Whether a visitor who asks for `name` means this exhibit: its id, its advisory, or another name of it. */
export function isNamed(exhibit: Exhibit, name: string): boolean {
  const { id, also = [] } = exhibit;
  return id === name || id.split('/')[0] === name || also.includes(name);
}
