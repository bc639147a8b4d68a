import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ChildNames, type Node, removal, type View } from './node.ts';
import { Store } from './store.ts';

/** Frames on the stack of whoever calls. */
function stackDepth(): number {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = Number.POSITIVE_INFINITY;
  const { stack = '' } = new Error('for its stack');
  Error.stackTraceLimit = limit;
  return stack.split('\n').length;
}

test('X12 a tree is walked without recursion: the stack is as deep at its bottom as at its top', () => {
  const control = new Store().domains.control;
  const node = (...names: string[]): Node => ({
    value: new Uint8Array(0),
    permissions: [{ domain: control, rights: 0 }],
    children: names.reduce((all, name) => all.with(name), ChildNames.none),
    generation: 0,
  });
  const [top, bottom] = ['/d', '/d'.repeat(1500)];
  const depths = new Map<string, number>();
  const view: View = {
    get(path) {
      if (path === top || path === bottom) depths.set(path, stackDepth());
      return path === bottom ? node() : node('d');
    },
    apply: () => assert.fail('nothing is changed'),
    nextGeneration: () => 1,
  };
  assert.equal(removal(view, top).removed.length, 1500);
  assert.equal(depths.size, 2);
  assert.equal(depths.get(bottom), depths.get(top));
});
