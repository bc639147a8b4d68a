// Calls that are wrong: told in a sentence, with exit status 2.

/** What the user wrote cannot be done; the message says what, where, and what would be right. */
export class UsageError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'UsageError';
  }
}
