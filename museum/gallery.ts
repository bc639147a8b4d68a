// A copy of the compiled program in a folder of its own, in which one file at a time has a defect.

import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compileDefect } from './patch.ts';
import type { Exhibit } from './exhibit.ts';

/** A copy that defects are put into and taken out of. */
export class Gallery {
  readonly #root: string;
  readonly #folder: string;

  /** @param root the repository, built */
  constructor(root: string) {
    this.#root = root;
    this.#folder = mkdtempSync(join(tmpdir(), 'grantio-museum-'));
    for (const part of ['src', 'test'])
      cpSync(join(root, 'dist', part), this.#compiled(part), {
        recursive: true,
        // A linked thread would run without the defect.
        filter: (path) => !/\.(map|d\.ts|linked\.js)$/.test(path),
      });
    cpSync(join(root, 'package.json'), join(this.#folder, 'package.json'));
    symlinkSync(join(root, 'node_modules'), join(this.#folder, 'node_modules'), 'dir');
  }

  /** Runs `visit` while the exhibit's file has its defect. Throws StaleExhibit when it cannot have it. */
  async withDefect<T>(exhibit: Exhibit, visit: () => Promise<T>): Promise<T> {
    const path = this.compiled(exhibit.file);
    const defect = compileDefect(exhibit, this.#root);
    const sound = readFileSync(path);
    writeFileSync(path, defect);
    try {
      return await visit();
    } finally {
      writeFileSync(path, sound);
    }
  }

  /** Where the copy has the JavaScript of a source file. */
  compiled(file: string): string {
    return this.#compiled(file.replace(/\.ts$/, '.js'));
  }

  close(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #compiled(path: string): string {
    return join(this.#folder, 'dist', path);
  }
}
