// "Did you mean …?": the known name that is nearest to a misspelt one.

/** Letters to insert, delete, replace or swap with their neighbour to make `b` of `a` (optimal alignment). */
function distance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const replace = last[column - 1]! + (a[row - 1] === b[column - 1] ? 0 : 1);
      let best = Math.min(replace, last[column]! + 1, current[column - 1]! + 1);
      const swapped = row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1];
      if (swapped) best = Math.min(best, beforeLast[column - 2]! + 1);
      current.push(best);
    }
    beforeLast = last;
    last = current;
  }
  return last[b.length]!;
}

/** Longer words are not misspelt names, and comparing them would cost time. */
const MAX_WORD = 64;

/** The name nearest to `word` when it is near enough to be meant (a third of its letters differ at most). */
function nearest(word: string, names: Iterable<string>): string | undefined {
  if (word.length > MAX_WORD) return undefined;
  const wanted = word.toLowerCase();
  let best: string | undefined;
  let bestDistance = Math.max(1, Math.floor(word.length / 3)) + 1;
  for (const name of names) {
    const found = distance(wanted, name);
    if (found < bestDistance) {
      best = name;
      bestDistance = found;
    }
  }
  return best;
}

/** The help line for an unknown `word`: the nearest of `names`, or all of them where they are few. */
export function didYouMean(word: string, names: readonly string[]): string | undefined {
  const near = nearest(word, names);
  if (near !== undefined) return `did you mean \`${near}\`?`;
  return names.length <= 12 ? `expected one of ${names.join(', ')}` : undefined;
}
