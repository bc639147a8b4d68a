// Loads stepped versions of modules of src/: compiles the sources through transform.ts into a temporary folder,
// imports them from there, and removes the folder again.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import ts from 'typescript';
import type { Steps } from './access.ts';
import { Stepper } from './stepper.ts';
import { stepping } from './transform.ts';

const root = fileURLToPath(new URL('../../../../', import.meta.url));
const runtime = new URL('runtime.js', import.meta.url).href;

/** A change of one source file: a mistake that is planted in it. */
export interface Patch {
  /** Path below the root of the repository. */
  readonly file: string;
  /** What stands there, exactly once, and what is to stand there instead. */
  readonly from: string;
  readonly to: string;
}

/**
 * Imports the module at `path` (below the root of the repository) and all that it imports, stepped.
 *
 * @throws Error when the sources do not compile, cannot be stepped, or a patch does not fit
 */
export async function loadStepped<Module>(path: string, patches: readonly Patch[] = []): Promise<Module> {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-stepped-'));
  try {
    writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
    compile(join(root, path), folder, patches);
    return (await import(pathToFileURL(join(folder, path.replace(/\.ts$/, '.js'))).href)) as Module;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Parsed files are kept from one program to the next: most are the same. */
let lastProgram: ts.Program | undefined;

function compile(entry: string, folder: string, patches: readonly Patch[]): void {
  const { config } = ts.readConfigFile(join(root, 'tsconfig.json'), ts.sys.readFile);
  const { options } = ts.convertCompilerOptionsFromJson(config.compilerOptions, root);
  const { tsBuildInfoFile: _, ...kept } = options;
  const program = ts.createProgram({
    rootNames: [entry],
    options: {
      ...kept,
      outDir: folder,
      incremental: false,
      declaration: false,
      sourceMap: false,
      inlineSourceMap: true,
      types: [],
    },
    host: patchedHost(options, patches),
    ...(lastProgram === undefined ? {} : { oldProgram: lastProgram }),
  });
  lastProgram = program;
  const transformer = stepping(new Stepper(program, root), runtime);
  const { diagnostics } = program.emit(undefined, undefined, undefined, false, {
    before: [transformer],
  });
  if (diagnostics.length > 0)
    throw new Error(ts.formatDiagnostics(diagnostics, ts.createCompilerHost(options)));
}

function patchedHost(options: ts.CompilerOptions, patches: readonly Patch[]): ts.CompilerHost {
  const host = ts.createCompilerHost(options);
  const changed = new Map<string, string>();
  for (const { file, from, to } of patches) {
    const path = join(root, file);
    const text = changed.get(path) ?? ts.sys.readFile(path) ?? '';
    const found = text.split(from).length - 1;
    if (found !== 1)
      throw new Error(`${file}: what a patch replaces stands there ${found} times, not once:\n${from}`);
    changed.set(
      path,
      text.replace(from, () => to),
    );
  }
  const { getSourceFile } = host;
  host.getSourceFile = (path, version, ...rest) => {
    const text = changed.get(path);
    const before = lastProgram?.getSourceFile(path);
    if (text !== undefined) return ts.createSourceFile(path, text, version, true);
    return before?.isDeclarationFile ? before : getSourceFile.call(host, path, version, ...rest);
  };
  return host;
}

/** The methods of an object, or the functions of a module, by steps. */
export type Stepped<Type> = {
  [Name in keyof Type]: Type[Name] extends (...args: infer Args) => infer Result
    ? (...args: Args) => Steps<Result>
    : never;
};

/** The stepped methods of an object, or functions of a module, that was loaded with `loadStepped`. */
export function steps<Type extends object>(object: Type): Stepped<Type> {
  return new Proxy(object, {
    get(_, name) {
      const plain: unknown = Reflect.get(object, name);
      const twin: unknown =
        Reflect.get(object, `${String(name)}$`) ??
        (typeof plain === 'function' ? Reflect.get(plain, '$') : undefined);
      if (typeof twin !== 'function')
        throw new Error(`${String(name)} has no steps: its module was not stepped, or it makes no access`);
      return twin.bind(object);
    },
  }) as Stepped<Type>;
}
