// Puts a compiled module and all of ours that it imports into one file. Node takes longer to find, read and link seventy
// modules than to run what is in them, and each thread does it anew. Used by build.mjs.
//
// Every module becomes a function that returns what it exports, in the order in which Node would run them. That is the
// same program, because our modules keep to a part of the language: imports and exports by name, no cycles (npm run
// check:layers), nothing that is loaded later, and no exported variable that changes. Whatever else is found ends the
// build.

import { readFileSync } from 'node:fs';
import { dirname, relative, resolve } from 'node:path';
import ts from 'typescript';

/** The text of a file that does in the folder of the module at `entry` what that does. */
export function linked(entry) {
  const linker = new Linker(dirname(entry));
  linker.add(entry);
  return linker.text();
}

class Linker {
  #folder;
  /** Texts of the modules, by path, in the order in which they run. */
  #modules = new Map();
  /** Modules that are not ours. */
  #externals = new Set();

  constructor(folder) {
    this.#folder = folder;
  }

  /** Adds a module behind those that it imports. */
  add(path) {
    if (this.#modules.has(path)) return;
    const source = ts.createSourceFile(path, readFileSync(path, 'utf8'), ts.ScriptTarget.Latest, true);
    const edits = [];
    const exports = [];
    for (const statement of source.statements) {
      if (ts.isImportDeclaration(statement)) edits.push(this.#import(statement, path));
      else if (ts.isExportDeclaration(statement)) edits.push(this.#reexport(statement, path, exports));
      else edits.push(...exported(statement, path, exports), ...this.#places(statement, path));
    }
    this.#modules.set(path, wrapped(edited(source.text, edits), exports));
  }

  text() {
    const imports = [...this.#externals].map((name) => `import * as ${identifier(name)} from '${name}';`);
    const modules = [...this.#modules].map(([path, text]) => `const ${this.#name(path)} = ${text};`);
    return `${[...imports, ...modules].join('\n')}\n`;
  }

  /** `import { a, b as c } from './m.js'` as `const { a, b: c } = m`. */
  #import(statement, path) {
    const module = this.#module(statement.moduleSpecifier.text, path);
    const { name, namedBindings } = statement.importClause ?? {};
    if (namedBindings && ts.isNamespaceImport(namedBindings))
      return replace(statement, `const ${namedBindings.name.text} = ${module};`);
    const names = (namedBindings?.elements ?? []).map(({ propertyName, name: inner }) =>
      propertyName === undefined ? inner.text : `${propertyName.text}: ${inner.text}`,
    );
    if (name !== undefined) names.push(`default: ${name.text}`);
    return replace(statement, `const { ${names.join(', ')} } = ${module};`);
  }

  /** `export {}`, which says that a file is a module, and `export { a } from './m.js'`. */
  #reexport(statement, path, exports) {
    const { exportClause: clause, moduleSpecifier: from } = statement;
    if (clause === undefined || !ts.isNamedExports(clause)) fail(path, statement, 'an export without names');
    const module = from === undefined ? undefined : this.#module(from.text, path);
    for (const { propertyName, name } of clause.elements) {
      const inner = (propertyName ?? name).text;
      exports.push(`${name.text}: ${module === undefined ? inner : `${module}.${inner}`}`);
    }
    return replace(statement, '');
  }

  /** `import.meta.url`, which is to be that of the module and not that of the one file. */
  #places(node, path) {
    if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword)
      fail(path, node, 'an import at run time');
    if (ts.isMetaProperty(node.expression ?? node) && node.name?.text === 'url') {
      const place = relative(this.#folder, path);
      return [{ start: node.getStart(), end: node.end, text: `new URL('${place}', import.meta.url).href` }];
    }
    const edits = [];
    ts.forEachChild(node, (child) => void edits.push(...this.#places(child, path)));
    return edits;
  }

  /** The name of what a module exports; one of ours is added first. */
  #module(specifier, importer) {
    if (!specifier.startsWith('.')) {
      this.#externals.add(specifier);
      return identifier(specifier);
    }
    const path = resolve(dirname(importer), specifier);
    this.add(path);
    return this.#name(path);
  }

  #name(path) {
    return identifier(relative(resolve(this.#folder, '..'), path).replace(/\.js$/, ''));
  }
}

/** Notes what a statement exports. Returns the edits that take the word `export` away. */
function exported(statement, path, exports) {
  const word = statement.modifiers?.find(({ kind }) => kind === ts.SyntaxKind.ExportKeyword);
  if (word === undefined) return [];
  if (ts.isVariableStatement(statement)) {
    const { declarations, flags } = statement.declarationList;
    const areNames = declarations.every(({ name }) => ts.isIdentifier(name));
    if (!(flags & ts.NodeFlags.Const) || !areNames) fail(path, statement, 'an exported variable');
    exports.push(...declarations.map(({ name }) => name.text));
  } else if ((ts.isFunctionDeclaration(statement) || ts.isClassDeclaration(statement)) && statement.name)
    exports.push(statement.name.text);
  else fail(path, statement, 'an export');
  return [{ start: word.getStart(), end: word.end, text: '' }];
}

function wrapped(text, exports) {
  const body = text.replace(/\n\/\/# sourceMappingURL=.*\s*$/, '\n');
  return `(() => {\n${body}return { ${exports.join(', ')} };\n})()`;
}

function replace(statement, text) {
  return { start: statement.getStart(), end: statement.end, text };
}

function edited(text, edits) {
  let result = text;
  for (const { start, end, text: instead } of edits.toSorted((a, b) => b.start - a.start))
    result = result.slice(0, start) + instead + result.slice(end);
  return result;
}

function identifier(name) {
  return `$${name.replaceAll(/\W/g, '_')}`;
}

function fail(path, statement, what) {
  const { line } = statement.getSourceFile().getLineAndCharacterOfPosition(statement.getStart());
  throw new Error(`${path}:${line + 1}: ${what} of a kind that scripts/link.mjs does not know`);
}
