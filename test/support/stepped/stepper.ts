// Which functions of a program have to be stepped: those that touch a typed array, or may call one that does. The type
// checker says what a typed array is and what is called. Before transform.ts, which rewrites them.

import ts from 'typescript';
import { ARRAY_METHODS } from './runtime.ts';

const TYPED_ARRAYS = new Set(
  ['Int8', 'Uint8', 'Uint8Clamped', 'Int16', 'Uint16', 'Int32', 'Uint32'].map((kind) => `${kind}Array`),
);
/** Methods of typed arrays that read or write elements. Those that only make another view are none. */
const BULK_METHODS = new Set(['set', 'fill', 'copyWithin', 'slice', 'reverse', 'sort']);

/** A function, method or getter with a body. */
export type Code = ts.FunctionLikeDeclaration & { readonly body: ts.ConciseBody };

/** How a call in stepped code is made. */
export type Callee = 'plain' | 'function' | 'method' | 'array method' | 'unknown function' | 'unknown method';

/** Knows what has to be stepped in a program. */
export class Stepper {
  readonly #checker: ts.TypeChecker;
  readonly #root: string;
  readonly #stepped = new Set<ts.Node>();

  /** @param root folder to which sites are relative */
  constructor(program: ts.Program, root: string) {
    this.#checker = program.getTypeChecker();
    this.#root = root;
    const files = program.getSourceFiles().filter((file) => !file.isDeclarationFile);
    this.#find(files);
    for (const file of files) this.#refuseOverriding(file);
  }

  isStepped(node: ts.Node): boolean {
    return this.#stepped.has(node);
  }

  isTypedArray(node: ts.Expression): boolean {
    return this.#hasTypeOf(node, TYPED_ARRAYS);
  }

  /** "Atomics.add", ".fill" and the like when `call` is an access to memory. */
  accessKind(call: ts.CallExpression): string | undefined {
    const callee = call.expression;
    if (!ts.isPropertyAccessExpression(callee)) return undefined;
    const name = callee.name.text;
    if (ts.isIdentifier(callee.expression) && callee.expression.text === 'Atomics') return `Atomics.${name}`;
    if (BULK_METHODS.has(name) && this.isTypedArray(callee.expression)) return `.${name}`;
    if (/^[gs]et\w+\d$/.test(name) && this.#hasTypeOf(callee.expression, new Set(['DataView'])))
      return `.${name}`;
    return undefined;
  }

  /** How stepped code makes a call. */
  callee(call: ts.CallExpression): Callee {
    const declaration = this.#checker.getResolvedSignature(call)?.declaration;
    if (declaration === undefined || declaration.getSourceFile().isDeclarationFile)
      return callbackOf(call) !== undefined && this.#stepped.has(callbackOf(call)!)
        ? 'array method'
        : 'plain';
    const code = implementation(declaration, this.#checker);
    if (code === undefined)
      return ts.isMethodSignature(declaration) || ts.isMethodDeclaration(declaration)
        ? 'unknown method'
        : 'unknown function';
    if (!this.#stepped.has(code)) return 'plain';
    return ts.isMethodDeclaration(code) ? 'method' : 'function';
  }

  /** Whether a property is a getter, or a setter, that has a stepped twin. */
  isSteppedProperty(node: ts.PropertyAccessExpression, kind: (node: ts.Node) => boolean): boolean {
    return this.#accessors(node).some((accessor) => kind(accessor) && this.#stepped.has(accessor));
  }

  siteOf(node: ts.Node): string {
    const file = ts.getOriginalNode(node).getSourceFile();
    const { line } = file.getLineAndCharacterOfPosition(ts.getOriginalNode(node).getStart(file));
    return `${file.fileName.slice(this.#root.length)}:${line + 1}`;
  }

  /** What is stepped: whatever makes an access or an unknown call, and then whatever calls that. */
  #find(files: readonly ts.SourceFile[]): void {
    const callers = new Map<ts.Node, Code[]>();
    const found: Code[] = [];
    for (const file of files)
      eachCode(file, (code) => {
        if (ts.isConstructorDeclaration(code) || isAsync(code) || code.asteriskToken !== undefined) return;
        for (const used of this.#uses(code)) {
          if (used === 'access') found.push(code);
          else callers.set(used, [...(callers.get(used) ?? []), code]);
        }
      });
    for (let code = found.pop(); code !== undefined; code = found.pop()) {
      if (this.#stepped.has(code)) continue;
      this.#stepped.add(code);
      found.push(...(callers.get(code) ?? []));
    }
  }

  /** A call names one twin at compile time: that of the base would run instead of what overrides it. */
  #refuseOverriding(node: ts.Node): void {
    ts.forEachChild(node, (child) => this.#refuseOverriding(child));
    if (!ts.isClassLike(node)) return;
    const base = node.heritageClauses?.find(({ token }) => token === ts.SyntaxKind.ExtendsKeyword)?.types[0];
    const members = base && this.#checker.getTypeAtLocation(base).getProperties();
    const overridden = members?.find(
      (member) =>
        member.declarations?.some((each) => this.#stepped.has(each)) &&
        node.members.some((own) => own.name?.getText() === member.name),
    );
    if (overridden)
      throw new Error(
        `${this.siteOf(node)}: ${overridden.name} overrides what is stepped; that cannot be stepped`,
      );
  }

  /** What one function's own code does: 'access', also for an unknown call, or the function that it calls. */
  *#uses(code: Code): Generator<'access' | ts.Node> {
    for (const node of ownNodes(code.body)) {
      if (ts.isElementAccessExpression(node) && this.isTypedArray(node.expression)) yield 'access';
      if (ts.isPropertyAccessExpression(node)) yield* this.#accessors(node);
      if (!ts.isCallExpression(node)) continue;
      if (this.accessKind(node) !== undefined) yield 'access';
      const declaration = this.#checker.getResolvedSignature(node)?.declaration;
      if (declaration === undefined || declaration.getSourceFile().isDeclarationFile) {
        const callback = callbackOf(node);
        if (callback !== undefined) yield callback;
        continue;
      }
      yield implementation(declaration, this.#checker) ?? 'access';
    }
  }

  #accessors(node: ts.PropertyAccessExpression): ts.Node[] {
    return this.#checker.getSymbolAtLocation(node.name)?.declarations?.filter(ts.isAccessor) ?? [];
  }

  #hasTypeOf(node: ts.Expression, names: ReadonlySet<string>): boolean {
    const type = this.#checker.getTypeAtLocation(node);
    return (type.isUnion() ? type.types : [type]).some((each) => names.has(each.symbol?.name ?? ''));
  }
}

export function isCode(node: ts.Node): node is Code {
  return ts.isFunctionLike(node) && 'body' in node && node.body !== undefined;
}

function isAsync(code: Code): boolean {
  return (ts.getCombinedModifierFlags(code as ts.Declaration) & ts.ModifierFlags.Async) !== 0;
}

/** The body behind a declaration; for one of several signatures, that of the implementation. */
function implementation(declaration: ts.Node, checker: ts.TypeChecker): Code | undefined {
  if (isCode(declaration)) return declaration;
  if (!ts.isFunctionDeclaration(declaration) && !ts.isMethodDeclaration(declaration)) return undefined;
  const symbol = declaration.name && checker.getSymbolAtLocation(declaration.name);
  return symbol?.declarations?.find(isCode);
}

/** The function that is written as the argument of a method of an array which calls back. */
function callbackOf(call: ts.CallExpression): ts.Node | undefined {
  const [first] = call.arguments;
  if (!ts.isPropertyAccessExpression(call.expression) || !ARRAY_METHODS.has(call.expression.name.text))
    return undefined;
  return first !== undefined && (ts.isArrowFunction(first) || ts.isFunctionExpression(first))
    ? first
    : undefined;
}

function eachCode(node: ts.Node, found: (code: Code) => void): void {
  if (isCode(node)) found(node);
  ts.forEachChild(node, (child) => eachCode(child, found));
}

/** The nodes of a body without those of functions inside it. */
export function* ownNodes(node: ts.Node): Generator<ts.Node> {
  if (isCode(node)) return;
  yield node;
  const children: ts.Node[] = [];
  ts.forEachChild(node, (child) => {
    children.push(child);
  });
  for (const child of children) yield* ownNodes(child);
}
