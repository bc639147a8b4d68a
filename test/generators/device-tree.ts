// Random device trees for property tests: names and values of every kind that a blob can hold.

import fc from 'fast-check';
import {
  cells,
  type DeviceTree,
  emptyNode,
  strings,
  type TreeNode,
} from '../../src/toolstack/device-tree/tree.ts';

const nodeName = fc.stringMatching(/^[a-z][0-9a-zA-Z,._+-]{0,8}(@[0-9a-f]{1,8})?$/);
const propertyName = fc.stringMatching(/^[0-9a-zA-Z,._+*#?-]{1,12}$/);
const value = fc.oneof(
  fc.constant(new Uint8Array()),
  fc.uint8Array({ maxLength: 20 }),
  fc.array(fc.nat(0xffffffff), { minLength: 1, maxLength: 5 }).map((numbers) => cells(...numbers)),
  fc
    .array(fc.string({ minLength: 1, maxLength: 10 }), { minLength: 1, maxLength: 3 })
    .map((texts) => strings(...texts)),
);
const u64 = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });

/** Properties that mean something to a compiler, which would refuse random values. */
const MEANINGFUL = /phandle|^name$/;

const { node } = fc.letrec<{ node: TreeNode }>((tie) => ({
  node: fc
    .record({
      name: nodeName,
      properties: fc.array(
        fc.tuple(
          propertyName.filter((name) => !MEANINGFUL.test(name)),
          value,
        ),
        { maxLength: 4 },
      ),
      children: fc.oneof({ maxDepth: 4 }, fc.constant([]), fc.array(tie('node'), { maxLength: 3 })),
    })
    .map(({ name, properties, children }) => {
      const made = emptyNode(name);
      for (const [property, bytes] of properties) made.properties.set(property, { value: bytes });
      for (const child of children) made.children.set(child.name, child);
      return made;
    }),
}));

/** Trees that a blob and a source can hold alike. */
export const deviceTree: fc.Arbitrary<DeviceTree> = fc.record({
  root: node.map((made) => ({ ...made, name: '' })),
  // A reservation of zeroes would end the list in the blob.
  reservations: fc.array(
    fc.record({ address: u64, size: u64.filter((size) => size !== 0n) }, { noNullPrototype: true }),
    {
      maxLength: 3,
    },
  ),
  bootCpu: fc.constant(0),
});
