// Lets a second party run between any two accesses that a first party makes to shared words: every
// Atomics.load and Atomics.store is a point at which the test may step in, as another processor would.

type Words = Int32Array | Uint16Array | Uint32Array | Uint8Array;

/** Runs `body` with `point` called before every atomic load and store that it makes. */
export function withPreemption(point: () => void, body: () => void): void {
  const { load, store } = Atomics;
  const install = (on: boolean) => {
    Object.assign(Atomics, {
      load: on ? loadAfterPoint : load,
      store: on ? storeAfterPoint : store,
    });
  };
  const stepIn = () => {
    // Whoever steps in is not stepped in on: its accesses are one piece.
    install(false);
    try {
      point();
    } finally {
      install(true);
    }
  };
  const loadAfterPoint = (words: Words, index: number) => {
    stepIn();
    return load(words, index);
  };
  const storeAfterPoint = (words: Words, index: number, value: number) => {
    stepIn();
    return store(words, index, value);
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
