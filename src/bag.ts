/** What may be in a Bag, one at a time. */
export interface Member {
  /** Where it stands there; undefined while it is in none. The bag's own. */
  place: number | undefined;
}

/**
 * What is under way, in no order. For what comes and goes with every call, in place of a Set or a Map: JavaScriptCore gives
 * those a new table after so many changes, and the old table refers to the new one (Bun 1.4.5). Once a table has become old
 * for the collector, all that follow it, and all that stood in them, are kept until it looks through the whole heap: its work
 * was a quarter of a short call.
 */
export class Bag<T extends Member> implements Iterable<T> {
  readonly #members: T[] = [];

  get size(): number {
    return this.#members.length;
  }

  add(member: T): void {
    if (member.place === undefined) member.place = this.#members.push(member) - 1;
  }

  /** Whether it was in. */
  delete(member: T): boolean {
    const { place } = member;
    if (place === undefined) return false;
    member.place = undefined;
    const last = this.#members.pop();
    if (last === undefined || last === member) return true;
    this.#members[place] = last;
    last.place = place;
    return true;
  }

  clear(): void {
    for (const member of this.#members) member.place = undefined;
    this.#members.length = 0;
  }

  /** Of those that were in at its beginning; members may be added and deleted meanwhile. */
  [Symbol.iterator](): Iterator<T> {
    return [...this.#members][Symbol.iterator]();
  }
}
