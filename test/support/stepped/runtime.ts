// What stepped modules import: transform.ts puts calls of these where an access is more than one expression, and where it
// cannot know at compile time whether what is called has steps.

import { access, now, type Steps, type TypedArray } from './access.ts';

export { access, now } from './access.ts';

/** `view[index] = change(view[index])` in two steps; the value is the new one, or the old one for `x++`. */
export function* update(
  site: string,
  view: TypedArray,
  index: number,
  change: (old: number) => number,
  givesOld: boolean,
): Steps<number> {
  const old = (yield access(site, 'get', view, index)) as number;
  const next = change(old);
  yield access(site, 'put', view, index, next);
  return givesOld ? old : next;
}

/** The same at once. */
export function updateNow(
  site: string,
  view: TypedArray,
  index: number,
  change: (old: number) => number,
  givesOld: boolean,
): number {
  const old = now(site, 'get', view, index) as number;
  const next = change(old);
  now(site, 'put', view, index, next);
  return givesOld ? old : next;
}

type Anything = (...args: readonly unknown[]) => unknown;

/** A function value with its stepped twin. */
interface Twin extends Anything {
  $?: (...args: readonly unknown[]) => Steps;
}

/** Joins a function and its stepped twin. */
export function both(plain: Twin, stepped: (...args: readonly unknown[]) => Steps): Twin {
  plain.$ = stepped;
  return plain;
}

/** Calls a function value, by steps if it has them; undefined where "?." finds none. */
export function* apply(callee: Twin | undefined, args: readonly unknown[]): Steps {
  if (callee === undefined) return undefined;
  return callee.$ === undefined ? callee(...args) : yield* callee.$(...args);
}

/** `[view[index], …] = values`; the places are views and indices in turn. */
export function* putAll(
  site: string,
  values: readonly unknown[],
  places: readonly unknown[],
): Steps<unknown> {
  for (const [index, value] of values.entries())
    yield access(site, 'put', places[2 * index] as TypedArray, places[2 * index + 1], value);
  return values;
}

/** The same at once. */
export function putAllNow(site: string, values: readonly unknown[], places: readonly unknown[]): unknown {
  for (const [index, value] of values.entries())
    now(site, 'put', places[2 * index] as TypedArray, places[2 * index + 1], value);
  return values;
}

/** Methods of arrays that call back, with callbacks that may have steps. */
const CALLING_BACK: Record<string, (array: readonly unknown[], callback: Twin) => Steps> = {
  *forEach(array, callback) {
    for (const [index, item] of array.entries()) yield* apply(callback, [item, index, array]);
  },
  *map(array, callback) {
    const mapped: unknown[] = [];
    for (const [index, item] of array.entries()) mapped.push(yield* apply(callback, [item, index, array]));
    return mapped;
  },
  *some(array, callback) {
    for (const [index, item] of array.entries())
      if (yield* apply(callback, [item, index, array])) return true;
    return false;
  },
  *every(array, callback) {
    for (const [index, item] of array.entries())
      if (!(yield* apply(callback, [item, index, array]))) return false;
    return true;
  },
};

export const ARRAY_METHODS: ReadonlySet<string> = new Set(Object.keys(CALLING_BACK));

/** Calls one of ARRAY_METHODS of an array. */
export function callBack(array: readonly unknown[], name: string, args: readonly unknown[]): Steps {
  return CALLING_BACK[name](array, args[0] as Twin);
}

/** Calls a method that is known by an interface only, by steps if it has them; undefined where "?." finds none. */
export function* call(receiver: object | undefined, name: string, args: readonly unknown[]): Steps {
  if (receiver === undefined) return undefined;
  const stepped = Reflect.get(receiver, `${name}$`) as ((...args: readonly unknown[]) => Steps) | undefined;
  if (stepped !== undefined) return yield* stepped.apply(receiver, [...args]);
  return (Reflect.get(receiver, name) as Anything).apply(receiver, [...args]);
}
