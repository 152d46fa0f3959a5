import { expect, test } from "bun:test";
import fc from "fast-check";
import { Bag, type Member } from "../src/bag.ts";

class Named implements Member {
  place: number | undefined;
  readonly name: number;

  constructor(name: number) {
    this.name = name;
  }
}

const names = (bag: Bag<Named>) => [...bag].map(({ name }) => name).sort((a, b) => a - b);

test("whatever is added and deleted, a bag holds what a set would", () => {
  const step = fc.record({ what: fc.constantFrom("add", "delete", "clear"), member: fc.nat(9) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const members = Array.from({ length: 10 }, (_, name) => new Named(name));
      const bag = new Bag<Named>();
      const set = new Set<Named>();
      for (const { what, member } of steps) {
        const named = members[member];
        if (named === undefined) throw new Error("there are ten");
        if (what === "add") {
          bag.add(named);
          set.add(named);
        } else if (what === "delete") expect(bag.delete(named)).toBe(set.delete(named));
        else {
          bag.clear();
          set.clear();
        }
        expect(bag.size).toBe(set.size);
      }
      expect(names(bag)).toEqual([...set].map(({ name }) => name).sort((a, b) => a - b));
    }),
  );
});

test("who goes through a bag may empty it meanwhile", () => {
  const bag = new Bag<Named>();
  for (let name = 0; name < 5; name++) bag.add(new Named(name));
  const seen: number[] = [];
  for (const member of bag) {
    seen.push(member.name);
    bag.delete(member);
  }
  expect(seen).toEqual([0, 1, 2, 3, 4]);
  expect(bag.size).toBe(0);
});
