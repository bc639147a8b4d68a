// Lets a second party run between any two accesses that a first party makes to shared words: every operation of
// Atomics is a point at which the test may step in, as another processor would.

const OPERATIONS = ['load', 'store', 'exchange', 'compareExchange', 'add', 'sub', 'and', 'or'] as const;

/** Runs `body` with `point` called before every atomic operation that it makes. */
export function withPreemption(point: () => void, body: () => void): void {
  const originals = OPERATIONS.map((name) => Atomics[name] as (...operands: unknown[]) => unknown);
  const install = (on: boolean) => {
    for (const [index, name] of OPERATIONS.entries()) {
      const original = originals[index];
      Object.assign(Atomics, { [name]: on ? after(original) : original });
    }
  };
  const after =
    (original: (...operands: unknown[]) => unknown) =>
    (...operands: unknown[]) => {
      // Whoever steps in is not stepped in on: its accesses are one piece.
      install(false);
      try {
        point();
      } finally {
        install(true);
      }
      return original(...operands);
    };
  install(true);
  try {
    body();
  } finally {
    install(false);
  }
}

/**
 * Runs `scenario` once for every choice of up to `most` points, among all that it comes to, at which its
 * `stepIn` answers true. Returns how many runs that were.
 */
export function everyInterleaving(most: number, scenario: (stepIn: () => boolean) => void): number {
  let runs = 0;
  const explore = (chosen: readonly number[]) => {
    let passed = 0;
    scenario(() => chosen.includes(passed++));
    runs++;
    if (chosen.length === most) return;
    for (let next = (chosen.at(-1) ?? -1) + 1; next < passed; next++) explore([...chosen, next]);
  };
  explore([]);
  return runs;
}
