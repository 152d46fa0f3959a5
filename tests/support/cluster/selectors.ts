/**
 * Label selectors (Kubernetes' labels.Parse): `a=b`, `a==b`, `a!=b`, `a in (b,c)`, `a notin (b)`, `a`, `!a`, `a>1`, `a<1`,
 * joined by commas. Refusals are 400 in the API server's words.
 */
import { labelKeyProblems, labelValueProblems } from "../../../src/pod/validate.ts";
import { type ApiError, badRequest } from "./status.ts";

export type Labels = Readonly<Record<string, string>>;
export type Selector = (labels: Labels | undefined) => boolean;

interface Requirement {
  readonly key: string;
  readonly operator: "in" | "notin" | "exists" | "absent" | ">" | "<";
  readonly values: readonly string[];
}

interface Token {
  readonly kind: "word" | "sign" | "end";
  readonly text: string;
}

const END: Token = { kind: "end", text: "" };
const OPERATORS = "in, notin, =, ==, !=, gt, lt";

/** Everything is selected by an empty selector. */
export function parseSelector(text: string): Selector {
  const requirements = new Parser(text).requirements();
  return (labels) => requirements.every((requirement) => holds(requirement, labels ?? {}));
}

function holds({ key, operator, values }: Requirement, labels: Labels): boolean {
  const value = Object.hasOwn(labels, key) ? labels[key] : undefined;
  if (operator === "exists") return value !== undefined;
  if (operator === "absent") return value === undefined;
  if (operator === "notin") return value === undefined || !values.includes(value);
  if (value === undefined) return false;
  if (operator === "in") return values.includes(value);
  return operator === ">" ? Number(value) > Number(values[0]) : Number(value) < Number(values[0]);
}

class Parser {
  readonly #tokens: Token[];

  constructor(text: string) {
    this.#tokens = [...text.matchAll(/\s*(?:(==|!=|[=!,()<>])|([^\s=!,()<>]+))/g)].map(([, sign, word]) =>
      sign === undefined ? { kind: "word", text: word ?? "" } : { kind: "sign", text: sign },
    );
  }

  requirements(): Requirement[] {
    const found: Requirement[] = [];
    if (this.#peek() === END) return found;
    for (;;) {
      const start = this.#peek();
      if (start.kind !== "word" && start.text !== "!") throw unexpected(start, "!, identifier, or 'end of string'");
      found.push(this.#requirement());
      const next = this.#next();
      if (next === END) return found;
      if (next.text !== ",") throw unexpected(next, "',' or 'end of string'");
      const after = this.#peek();
      if (after.kind !== "word" && after.text !== "!") throw unexpected(after, "identifier after ','");
    }
  }

  #requirement(): Requirement {
    const first = this.#next();
    const negated = first.kind === "sign";
    const name = negated ? this.#next() : first;
    if (name.kind !== "word") throw unparsable(`found '${name.text}', expected: identifier`);
    const key = requireKey(name.text);
    if (negated) return { key, operator: "absent", values: [] };
    if (this.#ends()) return { key, operator: "exists", values: [] };
    const { text } = this.#next();
    if (text === "=" || text === "==") return { key, operator: "in", values: [this.#value(key)] };
    if (text === "!=") return { key, operator: "notin", values: [this.#value(key)] };
    if (text === "in" || text === "notin") return { key, operator: text, values: this.#set(key) };
    if (text === ">" || text === "<") return { key, operator: text, values: [requireInteger(this.#value(key))] };
    throw unparsable(`found '${text}', expected: ${OPERATORS}`);
  }

  /** One value; none at all is the empty one. */
  #value(key: string): string {
    if (this.#ends()) return "";
    const { kind, text } = this.#next();
    if (kind !== "word") throw unparsable(`found '${text}', expected: identifier`);
    return requireValue(key, text);
  }

  #set(key: string): string[] {
    const open = this.#next();
    if (open.text !== "(") throw unparsable(`found '${open.text}' expected: '('`);
    const values: string[] = [];
    for (;;) {
      const { kind, text } = this.#next();
      if (kind === "word") values.push(requireValue(key, text));
      else if (text === ")") return values.length === 0 ? [""] : values;
      else if (text !== ",") throw unparsable(`found '${text}', expected: ',' or ')'`);
    }
  }

  #ends(): boolean {
    const { kind, text } = this.#peek();
    return kind === "end" || text === ",";
  }

  #peek(): Token {
    return this.#tokens[0] ?? END;
  }

  #next(): Token {
    return this.#tokens.shift() ?? END;
  }
}

const unexpected = ({ text }: Token, expected: string): ApiError =>
  badRequest(`found '${text}', expected: ${expected}`);

const unparsable = (cause: string): ApiError => badRequest(`unable to parse requirement: ${cause}`);

function requireKey(key: string): string {
  const problems = labelKeyProblems(key);
  if (problems.length > 0) throw unparsable(`<nil>: Invalid value: "${key}": ${problems.join("; ")}`);
  return key;
}

function requireValue(key: string, value: string): string {
  const problems = labelValueProblems(value);
  if (problems.length > 0) throw unparsable(`values[0][${key}]: Invalid value: "${value}": ${problems.join("; ")}`);
  return value;
}

function requireInteger(value: string): string {
  if (!/^[-+]?\d+$/.test(value))
    throw unparsable(`values[0]: Invalid value: "${value}": for 'Gt', 'Lt' operators, the value must be an integer`);
  return value;
}
