import { aboutOf, type Fault, type Kind, nameOf, type ProxiedRequest } from "./fault.ts";

/** Which requests are spoiled, by what they ask for and by their number among those. */
export interface Rule {
  readonly on: Kind | readonly Kind[];
  /** The plural in the URL; default: pods. */
  readonly resource?: string;
  readonly fault: Fault;
  /** How many such requests pass first; default: none. */
  readonly after?: number;
  /** How many are then spoiled; default: one. */
  readonly times?: number;
}

/**
 * What is to go wrong, for `Gate.fault`: the first rule that has something left for a request decides. `gate.fired` tells
 * what did.
 */
export function scripted(...rules: readonly Rule[]): (request: ProxiedRequest) => Fault | undefined {
  const seen = rules.map(() => 0);
  return (request) => {
    const { kind, resource } = aboutOf(request);
    for (const [index, { on, resource: wanted = "pods", fault, after = 0, times = 1 }] of rules.entries()) {
      if (wanted !== resource || !(typeof on === "string" ? [on] : on).includes(kind)) continue;
      const number = seen[index] ?? 0;
      seen[index] = number + 1;
      if (number >= after && number < after + times) return fault;
    }
    return undefined;
  };
}

/** What went wrong with which request, in order. */
export interface Fired {
  readonly kind: Kind;
  readonly resource: string;
  readonly name: string;
  readonly what: string;
  /** performance.now() */
  readonly at: number;
}

export const firedNow = (request: ProxiedRequest, fault: Fault): Fired => ({
  ...aboutOf(request),
  what: nameOf(fault),
  at: performance.now(),
});

/** Numbers from 0 up to 1 that one seed gives in one order (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
