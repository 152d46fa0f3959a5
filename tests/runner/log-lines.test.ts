import { expect, test } from "bun:test";
import fc from "fast-check";
import { LogResume } from "../../src/runner/log-resume.ts";

const at = (ms: number) => `2026-01-01T00:00:00.${String(ms).padStart(3, "0")}000001Z`;
const LIMIT = 65_536;

/** Lines around the limit of what is kept, and two that begin alike; served with timestamps, wanted without. */
const lines = [
  "first\n",
  `${"a".repeat(LIMIT + 10_000)}\n`,
  `${"a".repeat(LIMIT + 10_000)}b\n`,
  "\n",
  `${"c".repeat(LIMIT - at(0).length - 2)}\n`,
  `${"c".repeat(LIMIT - at(0).length - 1)}\n`,
  `${"d".repeat(3 * LIMIT)}\n`,
  `${"e".repeat(2 * LIMIT)} unended`,
];
const log = Buffer.from(lines.map((line, index) => `${at(index)} ${line}`).join(""));
const wanted = Buffer.from(lines.join(""));

test("lines of any length join over reads that are cut anywhere, without a gap or a repeat", () => {
  const cuts = fc.array(fc.nat(log.length), { maxLength: 5 });
  const size = fc.integer({ min: 500, max: 3 * LIMIT });
  fc.assert(
    fc.property(cuts, size, (ends, piece) => {
      const resume = new LogResume({ keepTimestamps: false });
      const sent: Uint8Array[] = [];
      for (const end of [...ends, log.length]) {
        resume.begin();
        for (let from = 0; from < end; from += piece)
          sent.push(resume.take(log.subarray(from, Math.min(end, from + piece))).slice());
      }
      sent.push(resume.finish());
      expect(Buffer.concat(sent).equals(wanted)).toBe(true);
    }),
    { numRuns: 50 },
  );
});

test("a long line is sent as it comes, not kept until it ends", () => {
  const resume = new LogResume({ keepTimestamps: true });
  resume.begin();
  const piece = Buffer.alloc(10_000, "x");
  let sent = resume.take(Buffer.from(`${at(0)} `)).length;
  for (let pieces = 1; pieces <= 100; pieces++) {
    sent += resume.take(piece).length;
    expect(pieces * piece.length - sent).toBeLessThanOrEqual(LIMIT);
  }
});

test("what the kubelet says in place of a log is never told as one", () => {
  for (const before of ["", `${at(0)} line\n`]) {
    const resume = new LogResume({ keepTimestamps: false });
    resume.begin();
    resume.take(Buffer.from(before));
    resume.begin();
    expect(() => {
      resume.take(Buffer.from("unable to retrieve container logs for containerd://0123"));
      resume.finish();
    }).toThrow("logs_gap");
  }
});
