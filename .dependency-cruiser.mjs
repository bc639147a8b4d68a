// The folder list is the architecture: imports go down only (ARCHITECTURE.md, "Layers").
// `npm run check:layers` fails on an upward or sideways import, on a cycle, and on node:* in the core.

/** Lowest first. A folder may import its own files and anything in an earlier row, nothing else. */
const layers = [
  ['abi', 'errors.ts'],
  ['xen', 'trace.ts'],
  ['dma', 'memory'],
  ['virtqueue'],
  ['virtio'],
  ['drivers', 'devices', 'storage'],
  ['transports', 'hosts', 'xenstore'],
  ['toolstack'],
  ['machine'],
  ['audit', 'explore', 'lint', 'nbd', 'vectors'],
  ['parallel', 'serving'],
  ['index.ts', 'cli'],
];

const place = (names) =>
  names.map((name) => (name.endsWith('.ts') ? `${name.replace('.', '\\.')}$` : `${name}/`));
const source = (names) => `^src/(${place(names).join('|')})`;

const upward = layers.slice(0, -1).map((names, row) => ({
  name: `upward-from-${names[0]}`,
  comment: `${names.join(', ')} may not import a layer above`,
  severity: 'error',
  from: { path: source(names), pathNot: '\\.test(\\.helper)?\\.ts$' },
  to: { path: source(layers.slice(row + 1).flat()) },
}));

// Rooms of one row do not know each other, save where the design says so.
const sideways = [
  ['dma', ['memory']],
  ['memory', ['dma']],
  ['drivers', ['devices', 'storage']],
  ['devices', ['drivers']],
  ['storage', ['drivers', 'devices', 'virtio', 'virtqueue']],
].map(([name, others]) => ({
  name: `sideways-from-${name}`,
  comment: `${name}/ must not know ${others.join(', ')}`,
  severity: 'error',
  from: { path: source([name]), pathNot: '\\.test(\\.helper)?\\.ts$' },
  to: { path: source(others) },
}));

export default {
  forbidden: [
    ...upward,
    ...sideways,
    { name: 'no-cycles', severity: 'error', from: { path: '^src/' }, to: { circular: true } },
    {
      name: 'core-runs-in-a-browser',
      comment: 'node:* only at the edges: hosts/linux, transports/vhost-user, storage, nbd, parallel, cli',
      severity: 'error',
      from: {
        path: '^src/',
        pathNot:
          '^src/(hosts/linux|transports/vhost-user|storage|nbd|parallel|serving|cli)/|\\.test(\\.helper)?\\.ts$',
      },
      to: { dependencyTypes: ['core'] },
    },
    {
      name: 'core-has-no-dependency',
      severity: 'error',
      from: { path: '^src/', pathNot: '^src/cli/|\\.test(\\.helper)?\\.ts$' },
      to: { dependencyTypes: ['npm', 'npm-dev', 'npm-optional', 'npm-peer'] },
    },
    {
      name: 'not-to-test',
      severity: 'error',
      from: { path: '^src/', pathNot: '\\.test(\\.helper)?\\.ts$' },
      to: { path: '\\.test(\\.helper)?\\.ts$|^test/' },
    },
    { name: 'unresolvable', severity: 'error', from: {}, to: { couldNotResolve: true } },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: { extensions: ['.ts', '.js'] },
  },
};
