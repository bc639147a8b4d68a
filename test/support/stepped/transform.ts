// Makes stepped versions of modules: each function that touches a typed array, or may call one that does, gets a twin
// whose name ends in "$". The twin is a generator that yields each access (access.ts) instead of making it. The
// transform knows no function by name; the type checker tells it what a typed array is and what is called.
//
//   function lock(heap, word) {                      lock.$ = function* (heap, word) {
//     while (Atomics.exchange(heap, word, 1));   →     while (yield access(…, 'Atomics.exchange', heap, word, 1));
//   }                                                };
//
// The originals stay, for constructors and for whoever sets a machine up; their accesses are made at once, and the
// driver is told. A constant SPINS says how often a thread looks before it sleeps: stepped, it sleeps at once.

import ts from 'typescript';
import { type Callee, type Code, isCode, ownNodes, type Stepper } from './stepper.ts';

/** The transformer for `program.emit`. @param runtime URL of runtime.ts, compiled, which stepped modules import */
export function stepping(stepper: Stepper, runtime: string): ts.TransformerFactory<ts.SourceFile> {
  return (context) => (file) => new Rewriter(stepper, context, file).file(runtime);
}

/** Rewrites one file. */
class Rewriter {
  readonly #stepper: Stepper;
  readonly #context: ts.TransformationContext;
  readonly #file: ts.SourceFile;
  readonly #make: ts.NodeFactory;

  constructor(stepper: Stepper, context: ts.TransformationContext, file: ts.SourceFile) {
    this.#stepper = stepper;
    this.#context = context;
    this.#file = file;
    this.#make = context.factory;
  }

  file(runtime: string): ts.SourceFile {
    const statements = ts.visitNodes(this.#file.statements, this.#visitor(false), ts.isStatement);
    return this.#make.updateSourceFile(this.#file, [this.#importOf(runtime), ...statements]);
  }

  #importOf(runtime: string): ts.Statement {
    const make = this.#make;
    const names = [
      'access',
      'now',
      'update',
      'updateNow',
      'putAll',
      'putAllNow',
      'both',
      'apply',
      'call',
      'callBack',
    ];
    const specifiers = names.map((name) =>
      make.createImportSpecifier(false, make.createIdentifier(name), make.createIdentifier(`$${name}`)),
    );
    const clause = make.createImportClause(undefined, undefined, make.createNamedImports(specifiers));
    return make.createImportDeclaration(undefined, clause, make.createStringLiteral(runtime));
  }

  #visitor(steps: boolean): ts.Visitor {
    return (node) => this.#visit(node, steps);
  }

  #visit(node: ts.Node, steps: boolean): ts.VisitResult<ts.Node> {
    if (isCode(node)) return this.#code(node);
    if (ts.isVariableDeclaration(node) && ts.isIdentifier(node.name) && node.name.text === 'SPINS')
      return this.#make.updateVariableDeclaration(
        node,
        node.name,
        undefined,
        undefined,
        this.#make.createNumericLiteral(0),
      );
    if (ts.isBinaryExpression(node)) return this.#assignment(node, steps) ?? this.#children(node, steps);
    if (ts.isPrefixUnaryExpression(node) || ts.isPostfixUnaryExpression(node))
      return this.#increment(node, steps) ?? this.#children(node, steps);
    if (ts.isElementAccessExpression(node) && this.#stepper.isTypedArray(node.expression))
      return this.#access(node, 'get', [node.expression, node.argumentExpression], steps);
    if (ts.isCallExpression(node)) return this.#call(node, steps);
    if (
      ts.isPropertyAccessExpression(node) &&
      steps &&
      this.#stepper.isSteppedProperty(node, ts.isGetAccessor)
    )
      return this.#get(node);
    return this.#children(node, steps);
  }

  #children(node: ts.Node, steps: boolean): ts.Node {
    return ts.visitEachChild(node, this.#visitor(steps), this.#context);
  }

  #expression(node: ts.Expression, steps: boolean): ts.Expression {
    return ts.visitNode(node, this.#visitor(steps), ts.isExpression)!;
  }

  /** A function as it was, and its twin. */
  #code(node: Code): ts.VisitResult<ts.Node> {
    const make = this.#make;
    const plain = this.#children(node, false);
    if (!this.#stepper.isStepped(node)) return plain;
    const star = make.createToken(ts.SyntaxKind.AsteriskToken);
    const body = this.#bodyOf(node);
    const parameters = ts.visitNodes(node.parameters, this.#visitor(false), ts.isParameter);
    if (ts.isMethodDeclaration(node) || ts.isAccessor(node)) {
      const kept = node.modifiers?.filter(({ kind }) => kind === ts.SyntaxKind.StaticKeyword);
      const name = this.#twinName(node.name, ts.isSetAccessor(node) ? '$set' : '$');
      return [
        plain,
        make.createMethodDeclaration(kept, star, name, undefined, undefined, parameters, undefined, body),
      ];
    }
    const twin = make.createFunctionExpression(
      undefined,
      star,
      undefined,
      undefined,
      parameters,
      undefined,
      body,
    );
    if (ts.isFunctionDeclaration(node) && node.name !== undefined) {
      const property = make.createPropertyAccessExpression(node.name, '$');
      return [plain, make.createExpressionStatement(make.createAssignment(property, twin))];
    }
    const bound = make.createCallExpression(make.createPropertyAccessExpression(twin, 'bind'), undefined, [
      make.createThis(),
    ]);
    return this.#help('both', [plain as ts.Expression, bound]);
  }

  #bodyOf({ body }: Code): ts.Block {
    if (ts.isBlock(body)) return this.#children(body, true) as ts.Block;
    return this.#make.createBlock([this.#make.createReturnStatement(this.#expression(body, true))]);
  }

  #call(node: ts.CallExpression, steps: boolean): ts.Expression {
    const make = this.#make;
    const kind = this.#stepper.accessKind(node);
    const callee = node.expression;
    if (kind !== undefined && ts.isPropertyAccessExpression(callee)) {
      const operands = kind.startsWith('.') ? [callee.expression, ...node.arguments] : [...node.arguments];
      const isBlind = ts.isExpressionStatement(node.parent) && /^Atomics\.(add|sub)$/.test(kind);
      return this.#access(node, isBlind ? kind.replace('Atomics', 'blind') : kind, operands, steps);
    }
    const how = steps ? this.#calleeOf(node) : 'plain';
    if (how === 'plain') return this.#children(node, steps) as ts.Expression;
    const args = node.arguments.map((each) => this.#expression(each, steps));
    if (how === 'method' && ts.isPropertyAccessExpression(callee))
      return this.#delegate(this.#twinOf(callee, steps), args);
    if (how === 'function')
      return this.#delegate(make.createPropertyAccessExpression(this.#expression(callee, steps), '$'), args);
    const list = make.createArrayLiteralExpression(args);
    if ((how === 'unknown method' || how === 'array method') && ts.isPropertyAccessExpression(callee)) {
      const receiver = this.#expression(callee.expression, steps);
      const name = make.createStringLiteral(callee.name.text);
      const helper = make.createIdentifier(how === 'array method' ? '$callBack' : '$call');
      return this.#delegate(helper, [receiver, name, list]);
    }
    return this.#delegate(make.createIdentifier('$apply'), [this.#expression(callee, steps), list]);
  }

  /** With "?." in it, a call is made by a helper that can do without what is called. */
  #calleeOf(node: ts.CallExpression): Callee {
    const how = this.#stepper.callee(node);
    if (how === 'plain' || !ts.isOptionalChain(node)) return how;
    if (node.questionDotToken !== undefined) return 'unknown function';
    const callee = node.expression;
    if (ts.isPropertyAccessExpression(callee) && callee.questionDotToken && ts.isIdentifier(callee.name))
      return 'unknown method';
    throw this.#unable(node, 'a long chain of "?." with a call of what may be stepped');
  }

  /** Reads a getter by steps. */
  #get(node: ts.PropertyAccessExpression): ts.Expression {
    const make = this.#make;
    if (node.questionDotToken === undefined) return this.#delegate(this.#twinOf(node, true), []);
    if (ts.isPrivateIdentifier(node.name)) throw this.#unable(node, 'a private getter after "?."');
    const receiver = this.#expression(node.expression, true);
    const name = make.createStringLiteral(node.name.text);
    return this.#delegate(make.createIdentifier('$call'), [
      receiver,
      name,
      make.createArrayLiteralExpression(),
    ]);
  }

  /** `[view[index], …] = values`. */
  #assignAll(node: ts.BinaryExpression, left: ts.ArrayLiteralExpression, steps: boolean): ts.Expression {
    const make = this.#make;
    const places = left.elements.flatMap((each) => {
      if (!ts.isElementAccessExpression(each) || !this.#stepper.isTypedArray(each.expression))
        throw this.#unable(node, 'an assignment to memory and to something else at once');
      return [each.expression, each.argumentExpression];
    });
    const args = [
      make.createStringLiteral(this.#stepper.siteOf(node)),
      this.#expression(node.right, steps),
      make.createArrayLiteralExpression(places.map((each) => this.#expression(each, steps))),
    ];
    return steps ? this.#delegate(make.createIdentifier('$putAll'), args) : this.#help('putAllNow', args);
  }

  #assignment(node: ts.BinaryExpression, steps: boolean): ts.Expression | undefined {
    const { left, operatorToken } = node;
    const { kind } = operatorToken;
    if (kind < ts.SyntaxKind.FirstAssignment || kind > ts.SyntaxKind.LastAssignment) return undefined;
    if (ts.isArrayLiteralExpression(left))
      return left.elements.some((each) => hasAccess(each, this.#stepper))
        ? this.#assignAll(node, left, steps)
        : undefined;
    if (
      steps &&
      ts.isPropertyAccessExpression(left) &&
      this.#stepper.isSteppedProperty(left, ts.isSetAccessor)
    ) {
      if (kind !== ts.SyntaxKind.EqualsToken) throw this.#unable(node, 'a compound assignment to a setter');
      return this.#delegate(this.#twinOf(left, steps, '$set'), [this.#expression(node.right, steps)]);
    }
    if (!ts.isElementAccessExpression(left) || !this.#stepper.isTypedArray(left.expression)) return undefined;
    const place = [left.expression, left.argumentExpression];
    if (kind === ts.SyntaxKind.EqualsToken) return this.#access(node, 'put', [...place, node.right], steps);
    // The right side would be read before the element: only what needs no step of its own means the same.
    const operator = operatorToken.getText(this.#file).slice(0, -1);
    const right = this.#expression(node.right, false);
    if (hasAccess(node.right, this.#stepper))
      throw this.#unable(node, 'an access on the right of a compound assignment to memory');
    return this.#update(node, place, operator, right, false, steps);
  }

  #increment(
    node: ts.PrefixUnaryExpression | ts.PostfixUnaryExpression,
    steps: boolean,
  ): ts.Expression | undefined {
    const { operand, operator } = node;
    if (!ts.isElementAccessExpression(operand) || !this.#stepper.isTypedArray(operand.expression))
      return undefined;
    const sign = { [ts.SyntaxKind.PlusPlusToken]: '+', [ts.SyntaxKind.MinusMinusToken]: '-' }[
      operator as number
    ];
    if (sign === undefined) return undefined;
    const place = [operand.expression, operand.argumentExpression];
    const one = this.#make.createNumericLiteral(1);
    return this.#update(node, place, sign, one, ts.isPostfixUnaryExpression(node), steps);
  }

  #update(
    node: ts.Node,
    place: readonly ts.Expression[],
    operator: string,
    right: ts.Expression,
    givesOld: boolean,
    steps: boolean,
  ): ts.Expression {
    const make = this.#make;
    const token = Object.entries(OPERATORS).find(([text]) => text === operator)?.[1];
    if (token === undefined) throw this.#unable(node, `the operator ${operator}= on memory`);
    const old = make.createIdentifier('$old');
    const change = make.createArrowFunction(
      undefined,
      undefined,
      [make.createParameterDeclaration(undefined, undefined, old)],
      undefined,
      undefined,
      make.createBinaryExpression(old, token, right),
    );
    const args = [
      make.createStringLiteral(this.#stepper.siteOf(node)),
      ...place.map((each) => this.#expression(each, steps)),
      change,
      givesOld ? make.createTrue() : make.createFalse(),
    ];
    return steps ? this.#delegate(make.createIdentifier('$update'), args) : this.#help('updateNow', args);
  }

  #access(node: ts.Node, kind: string, operands: readonly ts.Expression[], steps: boolean): ts.Expression {
    const make = this.#make;
    const args = [
      make.createStringLiteral(this.#stepper.siteOf(node)),
      make.createStringLiteral(kind),
      ...operands.map((each) => this.#expression(each, steps)),
    ];
    if (!steps) return this.#help('now', args);
    return make.createParenthesizedExpression(
      make.createYieldExpression(undefined, this.#help('access', args)),
    );
  }

  #help(name: string, args: readonly ts.Expression[]): ts.Expression {
    return this.#make.createCallExpression(this.#make.createIdentifier(`$${name}`), undefined, args);
  }

  #delegate(callee: ts.Expression, args: readonly ts.Expression[]): ts.Expression {
    const make = this.#make;
    const star = make.createToken(ts.SyntaxKind.AsteriskToken);
    const call = make.createCallExpression(callee, undefined, args);
    return make.createParenthesizedExpression(make.createYieldExpression(star, call));
  }

  #twinOf(node: ts.PropertyAccessExpression, steps: boolean, suffix = '$'): ts.Expression {
    const name = this.#twinName(node.name, suffix) as ts.MemberName;
    return this.#make.createPropertyAccessExpression(this.#expression(node.expression, steps), name);
  }

  #twinName(name: ts.PropertyName, suffix: string): ts.PropertyName {
    if (ts.isPrivateIdentifier(name)) return this.#make.createPrivateIdentifier(name.text + suffix);
    if (ts.isIdentifier(name)) return this.#make.createIdentifier(name.text + suffix);
    throw this.#unable(name, 'a stepped method whose name is no identifier');
  }

  #unable(node: ts.Node, what: string): Error {
    return new Error(`${this.#stepper.siteOf(node)}: ${what} cannot be stepped; write it in other words`);
  }
}

const OPERATORS: Record<string, ts.BinaryOperator> = {
  '+': ts.SyntaxKind.PlusToken,
  '-': ts.SyntaxKind.MinusToken,
  '&': ts.SyntaxKind.AmpersandToken,
  '|': ts.SyntaxKind.BarToken,
  '^': ts.SyntaxKind.CaretToken,
  '<<': ts.SyntaxKind.LessThanLessThanToken,
  '>>': ts.SyntaxKind.GreaterThanGreaterThanToken,
  '>>>': ts.SyntaxKind.GreaterThanGreaterThanGreaterThanToken,
};

function hasAccess(node: ts.Expression, stepper: Stepper): boolean {
  for (const each of ownNodes(node)) {
    if (ts.isElementAccessExpression(each) && stepper.isTypedArray(each.expression)) return true;
    if (ts.isPropertyAccessExpression(each) && stepper.isSteppedProperty(each, ts.isGetAccessor)) return true;
    if (
      ts.isCallExpression(each) &&
      (stepper.accessKind(each) !== undefined || stepper.callee(each) !== 'plain')
    )
      return true;
  }
  return false;
}
