// What `grantio run --explain` says: for each device, what was considered and what was decided, step by step.
// After parallel/virtual-host.ts, which reports the decisions; the rules are dma/policy.ts's.

import type { Decision } from '../dma/policy.ts';
import type { DeviceDecision } from '../parallel/guest-thread.ts';
import { devicesOf, type RunPlan } from './run-plan.ts';

/** A decision with the device's name, as the JSON document has it. */
type NamedDecision = { readonly device: string } & Decision;

/** The decisions of a call. Every host that it boots decides anew, and to the same end: the first one counts. */
export class Decisions {
  readonly #names: readonly string[];
  readonly #print: ((text: string) => void) | undefined;
  readonly #made: NamedDecision[] = [];

  /** @param print takes each explanation as soon as it is there; undefined where nothing is to be printed */
  constructor(plan: RunPlan, print: ((text: string) => void) | undefined) {
    this.#names = devicesOf(plan).map(({ name }) => name);
    this.#print = print;
  }

  get made(): readonly NamedDecision[] {
    return this.#made;
  }

  /** Names of the devices whose backend may reach all of the guest's memory. */
  get plain(): string[] {
    return this.#made.filter(({ access }) => access === 'plain').map(({ device }) => device);
  }

  /** Takes a decision of a host. */
  readonly take = ({ devid, decision }: DeviceDecision): void => {
    if (devid !== this.#made.length) return;
    const named = { device: this.#names[devid] ?? `device ${devid}`, ...decision };
    this.#made.push(named);
    this.#print?.(explained(named));
  };
}

/** A numbered explanation for people. */
function explained({ device, access, steps }: NamedDecision): string {
  const lines = steps.map(({ about, says }, index) => `  ${index + 1}. ${about}: ${says}\n`);
  return `${device}: ${access}\n${lines.join('')}`;
}
