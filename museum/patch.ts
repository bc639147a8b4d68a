// Makes the JavaScript of a source file that has an exhibit's defect. What it refuses is an exhibit that no
// longer fits the code: somebody has changed the line, and the exhibit has to follow.

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  convertCompilerOptionsFromJson,
  flattenDiagnosticMessageText,
  ModuleKind,
  parseConfigFileTextToJson,
  transpileModule,
} from 'typescript';
import type { Exhibit } from './exhibit.ts';

/** The exhibit does not fit the code; the message says why and what to do. */
export class StaleExhibit extends Error {
  constructor(exhibit: Exhibit, reason: string) {
    super(`${exhibit.file}: ${reason}`);
    this.name = 'StaleExhibit';
  }
}

/** The source with the defect. Throws StaleExhibit unless the text to replace stands there exactly once. */
export function patched(exhibit: Exhibit, source: string): string {
  const parts = source.split(exhibit.find);
  if (parts.length === 1)
    throw new StaleExhibit(exhibit, 'the text to find is not there; take it from the code as it is now');
  if (parts.length > 2)
    throw new StaleExhibit(
      exhibit,
      `the text to find is there ${parts.length - 1} times; make it longer, until it is there once`,
    );
  return parts.join(exhibit.replace);
}

/** The file below `root` with the defect, compiled as the build compiles it. */
export function compileDefect(exhibit: Exhibit, root: string): string {
  const path = join(root, exhibit.file);
  if (!existsSync(path)) throw new StaleExhibit(exhibit, 'there is no such file; has it been moved?');
  return compile(exhibit, patched(exhibit, readFileSync(path, 'utf8')), root);
}

function compile(exhibit: Exhibit, source: string, root: string): string {
  const project = join(root, 'tsconfig.json');
  const { config } = parseConfigFileTextToJson(project, readFileSync(project, 'utf8'));
  const { options } = convertCompilerOptionsFromJson(config.compilerOptions, root);
  const { outputText, diagnostics = [] } = transpileModule(source, {
    fileName: join(root, exhibit.file),
    reportDiagnostics: true,
    // One file alone does not see the package.json that makes it an ES module.
    compilerOptions: { ...options, module: ModuleKind.ESNext, sourceMap: false },
  });
  if (diagnostics.length > 0)
    throw new StaleExhibit(
      exhibit,
      `does not compile with the defect: ${flattenDiagnosticMessageText(diagnostics[0].messageText, ' ')}`,
    );
  return outputText;
}
