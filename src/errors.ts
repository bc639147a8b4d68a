// The three kinds of trouble and the one type for each that crosses a layer (docs/adr/0003-errors.md).
//
// Expected outcome (queue full, grant busy): a return value, never an exception.
// The peer broke the protocol: ProtocolViolation, caught at exactly one place for each role.
// Our own bug: AssertionError from `assert`, never caught.

/**
 * The peer (a driver, a device, a guest, a client) broke a rule of the protocol. Whoever owns the
 * connection to that peer catches it, breaks that connection and nothing else.
 */
export class ProtocolViolation extends Error {
  /** The rule that was broken: a section of virtio 1.3 ("§2.7.5.1"), or a named rule of Xen's ABI. */
  readonly clause: string;
  /** What was found and what would have been right. */
  readonly detail: string;

  /**
   * @param clause the rule, as the specification numbers or names it
   * @param detail what was found and what would have been right
   */
  constructor(clause: string, detail: string) {
    super(`${detail} (${clause})`);
    this.name = 'ProtocolViolation';
    this.clause = clause;
    this.detail = detail;
  }
}

/** A broken invariant of our own code; nothing catches it. */
export class AssertionError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'AssertionError';
  }
}

/**
 * Throws an AssertionError unless `condition` holds: for our own invariants, never for a peer's data.
 *
 * The figures are arguments and not part of the message, because a template string would be built on every
 * call, on hot paths too. It does nothing but look, so that the engine puts it in place of every call.
 */
export function assert(
  condition: boolean,
  message: string,
  got?: number,
  expected?: number,
): asserts condition {
  if (!condition) throw failure(message, got, expected);
}

function failure(message: string, got: number | undefined, expected: number | undefined): AssertionError {
  const figures = [
    got === undefined ? '' : `got ${got}`,
    expected === undefined ? '' : `expected ${expected}`,
  ];
  return new AssertionError([message, ...figures.filter((figure) => figure !== '')].join(', '));
}
