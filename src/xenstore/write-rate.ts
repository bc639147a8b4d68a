// A guest that keeps writing makes other users' transactions fail again and again (XSA-206). So while
// anyone has a transaction open, a guest's changes use up credit that comes back with time, and a guest
// without credit is not listened to for a while.

import type { Domain, Domains } from './domains.ts';

/** Changes in a row that are free. */
const BURST = 10;
/** Changes a second, shared by all guests. */
const PER_SECOND = 200;

/** The credit of every guest. */
export class WriteRate {
  readonly #now: () => number;
  readonly #domains: Domains;
  readonly #accounts = new WeakMap<Domain, { credit: number; at: number }>();

  constructor(now: () => number, domains: Domains) {
    this.#now = now;
    this.#domains = domains;
  }

  /** Charges one change, or one commit, to `domain`. */
  charge(domain: Domain): void {
    if (domain.privileged) return;
    const account = this.#account(domain);
    account.credit--;
  }

  /** Milliseconds until `domain` is to be listened to; 0 is now. */
  delay(domain: Domain): number {
    if (!this.#accounts.has(domain)) return 0;
    const { credit } = this.#account(domain);
    return credit >= 0 ? 0 : Math.ceil((-credit * 1000) / this.#perSecond());
  }

  #perSecond(): number {
    return PER_SECOND / Math.max(1, this.#domains.introducedGuests);
  }

  /** The account, with what has come back since it was last looked at. */
  #account(domain: Domain): { credit: number; at: number } {
    const now = this.#now();
    let account = this.#accounts.get(domain);
    if (account === undefined) {
      account = { credit: BURST, at: now };
      this.#accounts.set(domain, account);
    }
    const earned = ((now - account.at) * this.#perSecond()) / 1000;
    account.credit = Math.min(BURST, account.credit + earned);
    account.at = now;
    return account;
  }
}
