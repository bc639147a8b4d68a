// Options of `grantio serve`: the same names on the command line and in a file of devices, read and checked by the
// same code. Kept free of the parser of options, which takes longer to load than all of this takes to run.

import { UsageError } from './usage.ts';

/** An option. */
export interface ServeOption {
  /** On the command line `--NAME`, in a file the key NAME. */
  readonly name: string;
  /** What its value is called in the help; a switch has none. */
  readonly value?: string;
  readonly help: string;
}

/** What was given, by name: the text of a value, or true for a switch. */
export type GivenOptions = Readonly<Record<string, string | true>>;

/** Reads options. Every mistake is a UsageError that names the option as it was written. */
export class OptionReader {
  readonly #given: GivenOptions;
  readonly #called: (name: string) => string;

  /** @param called how the user wrote the option, such as "--queues" */
  constructor(given: GivenOptions, called: (name: string) => string = (name) => `--${name}`) {
    this.#given = given;
    this.#called = called;
  }

  text(name: string): string | undefined {
    const value = this.#given[name];
    if (value === '') throw this.wrong(name, 'is empty');
    return value === true ? undefined : value;
  }

  flag(name: string): boolean {
    return this.#given[name] === true;
  }

  /** A whole number from `least` to `most`, or `otherwise` when there is none. */
  number<T>(name: string, least: number, most: number, otherwise: T): number | T {
    const text = this.text(name);
    if (text === undefined) return otherwise;
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < least || value > most)
      throw this.wrong(name, `'${text}': expected a whole number from ${least} to ${most}`);
    return value;
  }

  /** One of `choices`, the first when nothing was given. */
  choice<T extends string>(name: string, choices: readonly T[]): T {
    const text = this.text(name) ?? choices[0];
    const found = choices.find((choice) => choice === text);
    if (found === undefined) throw this.wrong(name, `'${text}': expected one of ${choices.join(', ')}`);
    return found;
  }

  /** Of two options at most one, with its name. */
  either(one: string, other: string): { readonly name: string; readonly text: string } | undefined {
    const [first, second] = [this.text(one), this.text(other)];
    if (first !== undefined && second !== undefined)
      throw this.wrong(one, `and ${this.#called(other)} exclude each other; give one of them`);
    if (first !== undefined) return { name: one, text: first };
    return second === undefined ? undefined : { name: other, text: second };
  }

  /** The error to throw for a value that cannot be used. */
  wrong(name: string, problem: string): UsageError {
    return new UsageError(`${this.#called(name)} ${problem}`);
  }
}

/** The words that give these options on a command line. */
export function wordsOf(given: GivenOptions): string[] {
  return Object.entries(given).map(([name, value]) => (value === true ? `--${name}` : `--${name}=${value}`));
}
