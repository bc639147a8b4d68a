// Writes a tree as device tree source, .dts: what `dtc -I dtb -O dts` shows of a blob, with labels where
// there are any. source-reader.ts reads it back to the same tree.

import { cellsOf, type DeviceTree, stringsOf, type TreeNode, type TreeProperty } from './tree.ts';

/** The source of `tree`. The kind of a value (strings, cells, bytes) is guessed from its bytes. */
export function writeSource(tree: DeviceTree): string {
  const lines = ['/dts-v1/;', ''];
  for (const { address, size } of tree.reservations)
    lines.push(`/memreserve/ 0x${address.toString(16)} 0x${size.toString(16)};`);
  writeNode(tree.root, lines);
  return `${lines.join('\n')}\n`;
}

function writeNode(root: TreeNode, lines: string[]): void {
  const open: Iterator<TreeNode>[] = [];
  const begin = (node: TreeNode) => {
    const indent = '\t'.repeat(open.length);
    const labels = node.labels.map((label) => `${label}: `).join('');
    lines.push(`${indent}${labels}${open.length === 0 ? '/' : node.name} {`);
    for (const [name, property] of node.properties)
      lines.push(`${indent}\t${name}${writtenValue(property)};`);
    open.push(node.children.values());
  };
  begin(root);
  for (let last = open.at(-1); last !== undefined; last = open.at(-1)) {
    const child = last.next();
    if (!child.done) {
      lines.push('');
      begin(child.value);
    } else {
      open.pop();
      lines.push(`${'\t'.repeat(open.length)}};`);
    }
  }
}

function writtenValue(property: TreeProperty): string {
  if (property.value.length === 0) return '';
  const texts = printableStrings(property);
  if (texts !== undefined)
    return ` = ${texts.map((text) => `"${text.replace(/["\\]/g, '\\$&')}"`).join(', ')}`;
  const numbers = cellsOf(property);
  if (numbers !== undefined) return ` = <${numbers.map((number) => `0x${number.toString(16)}`).join(' ')}>`;
  return ` = [${Array.from(property.value, (byte) => byte.toString(16).padStart(2, '0')).join(' ')}]`;
}

/** The value as strings, if each has at least one character and all are printable ASCII. */
function printableStrings(property: TreeProperty): string[] | undefined {
  const texts = stringsOf(property);
  return texts?.every((text) => /^[\x20-\x7e]+$/.test(text)) ? texts : undefined;
}
