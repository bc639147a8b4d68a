// Checks what Markdown files refer to: relative links and their anchors, and paths of the repository in
// backquotes. Files move; the documents that name them have to follow.
//   node scripts/check-docs.mjs
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
/** The section of ARCHITECTURE.md that names files which do not exist yet. */
const PLANNED = '## Where new things go';

const files = [root, join(root, 'docs'), join(root, 'docs', 'adr')]
  .filter(existsSync)
  .flatMap((folder) => readdirSync(folder).map((name) => join(folder, name)))
  .filter((path) => path.endsWith('.md'));
const layers = readdirSync(join(root, 'src')).filter((name) => !name.includes('.'));
const isPath = new RegExp(`^(src|test|bench|scripts|docs|bin|${layers.join('|')})/[\\w./-]*\\.\\w+$`);

/** What GitHub makes of a heading. */
function anchorOf(heading) {
  return heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\s_-]/gu, '')
    .replace(/\s/g, '-');
}

function anchorsIn(path) {
  return [...readFileSync(path, 'utf8').matchAll(/^#+ (.+)$/gm)].map(([, heading]) => anchorOf(heading));
}

function linkFault(from, target) {
  if (/^[a-z]+:/.test(target)) return undefined;
  const [path, anchor] = target.split('#');
  const file = path === '' ? from : join(dirname(from), path);
  if (!existsSync(file)) return `there is no ${target}`;
  if (anchor && !anchorsIn(file).includes(anchor)) return `there is no heading for ${target}`;
  return undefined;
}

function pathFault(text) {
  if (!isPath.test(text)) return undefined;
  const found = [text, join('src', text)].some((path) => existsSync(join(root, path)));
  return found ? undefined : `there is no file ${text}`;
}

const faults = [];
for (const file of files) {
  let isCode = false;
  let isPlanned = false;
  for (const [index, line] of readFileSync(file, 'utf8').split('\n').entries()) {
    const report = (fault) => {
      if (fault !== undefined) faults.push(`${relative(root, file)}:${index + 1}: ${fault}`);
    };
    if (line.startsWith('```')) isCode = !isCode;
    if (isCode) continue;
    if (line.startsWith('## ')) isPlanned = line === PLANNED;
    for (const [, target] of line.matchAll(/\]\(([^)\s]+)\)/g)) report(linkFault(file, target));
    if (!isPlanned) for (const [, text] of line.matchAll(/`([^`]+)`/g)) report(pathFault(text));
  }
}
for (const fault of faults) console.error(fault);
console.log(`check-docs: ${files.length} files, ${faults.length} faults`);
process.exitCode = faults.length > 0 ? 1 : 0;
