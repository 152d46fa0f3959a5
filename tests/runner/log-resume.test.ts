import { expect, test } from "bun:test";
import fc from "fast-check";
import { release } from "../../src/memory.ts";
import { LogResume } from "../../src/runner/log-resume.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (data: Uint8Array) => new TextDecoder().decode(data);
const at = (ms: number) =>
  `2026-01-01T00:00:${String(Math.floor(ms / 1000)).padStart(2, "0")}.${String(ms % 1000).padStart(3, "0")}000001Z`;

/** A log of `count` lines, 100 ms apart, as the API serves it with timestamps. */
const logOf = (count: number, from = 0) =>
  Array.from({ length: count - from }, (_, index) => `${at((index + from) * 100)} line ${index + from}\n`).join("");

test("lines are sent without their timestamps, or with them when the caller asked", () => {
  const read = (keepTimestamps: boolean) => {
    const resume = new LogResume({ keepTimestamps });
    resume.begin();
    return text(resume.take(bytes(logOf(2))));
  };
  expect(read(false)).toBe("line 0\nline 1\n");
  expect(read(true)).toBe(logOf(2));
});

test("reads that are cut anywhere join to the log, without a gap or a repeat", () => {
  const log = logOf(30);
  const wanted = Array.from({ length: 30 }, (_, index) => `line ${index}\n`).join("");
  fc.assert(
    fc.property(fc.array(fc.nat(log.length), { maxLength: 6 }), fc.integer({ min: 1, max: 97 }), (cuts, size) => {
      const resume = new LogResume({ keepTimestamps: false });
      let sent = "";
      for (const cut of [...cuts, log.length]) {
        resume.begin();
        const since = resume.sinceTime === undefined ? 0 : Date.parse(resume.sinceTime);
        const lines = log.split("\n").filter((line) => line !== "" && Date.parse(line.slice(0, 30)) >= since);
        const served = lines.map((line) => `${line}\n`).join("");
        const part = cut === log.length ? served : served.slice(0, cut);
        for (let offset = 0; offset < part.length; offset += size)
          sent += text(resume.take(bytes(part.slice(offset, offset + size))));
      }
      sent += text(resume.finish());
      expect(sent).toBe(wanted);
    }),
  );
});

/** What a read gives in chunks that end at `cuts`, in hundredths of it. */
function takenOf(resume: LogResume, read: Uint8Array, cuts: readonly number[]): string {
  const edges = [0, ...cuts.toSorted((a, b) => a - b), 100].map((cut) => Math.floor((read.length * cut) / 100));
  const chunks = edges.slice(1).map((edge, index) => {
    const fresh = resume.take(read.subarray(edges[index], edge));
    const chunk = text(fresh);
    release(fresh); // as who sends it does
    return chunk;
  });
  return chunks.join("");
}

test("so do reads of lines that are equal, empty or longer than is kept, in chunks of any length", () => {
  const [KEPT, STAMP] = [65_536, at(0).length + 1];
  const long = [KEPT - STAMP - 2, KEPT - STAMP - 1, KEPT - STAMP, KEPT, 2 * KEPT + 7];
  const words = fc.constantFrom("", "a", "a b", ...long);
  const lines = fc.array(fc.tuple(fc.constantFrom(1, 700), words, fc.integer({ min: 1, max: 3 })), { minLength: 1 });
  const reads = fc.array(fc.tuple(fc.nat(100), fc.array(fc.nat(100), { maxLength: 5 })), { maxLength: 4 });
  fc.assert(
    fc.property(lines, reads, fc.boolean(), fc.boolean(), (steps, begun, keepTimestamps, isWhole) => {
      let ms = 0;
      const log = steps.flatMap(([step, word, count]) => {
        ms += step;
        const line = typeof word === "number" ? "y".repeat(word) : word;
        return Array.from({ length: count }, () => ({ ms, line: `${line}\n` }));
      });
      const last = log.at(-1);
      if (last !== undefined && !isWhole) last.line = last.line.slice(0, -1);
      const resume = new LogResume({ keepTimestamps });
      const sent = [...begun, [100, [50]] as const].map(([percent, cuts]) => {
        resume.begin();
        const since = resume.sinceTime === undefined ? 0 : Date.parse(resume.sinceTime);
        const served = log.filter(({ ms }) => Date.parse(at(ms)) >= since).map(({ ms, line }) => `${at(ms)} ${line}`);
        const read = bytes(served.join(""));
        return takenOf(resume, read.subarray(0, Math.floor((read.length * percent) / 100)), cuts);
      });
      sent.push(text(resume.finish()));
      const wanted = log.map(({ ms, line }) => (keepTimestamps ? `${at(ms)} ${line}` : line));
      expect(sent.join("") === wanted.join("")).toBe(true); // a report of megabytes helps nobody
    }),
    { numRuns: 300 },
  );
});

test("equal lines at the same moment are told apart by their number", () => {
  const resume = new LogResume({ keepTimestamps: false });
  resume.begin();
  resume.take(bytes(`${at(0)} x\n${at(0)} x\n`));
  resume.begin();
  expect(text(resume.take(bytes(`${at(0)} x\n${at(0)} x\n${at(0)} x\n`)))).toBe("x\n");
});

test("a last line without a newline is whole when the log is", () => {
  const resume = new LogResume({ keepTimestamps: false });
  resume.begin();
  expect(text(resume.take(bytes(`${at(0)} a\n${at(1)} b`)))).toBe("a\n");
  expect(text(resume.finish())).toBe("b");
});

test("a log that no longer has the last line sent ends logs_gap, and skips nothing silently", () => {
  for (const later of [logOf(30, 25), ""]) {
    const resume = new LogResume({ keepTimestamps: false });
    resume.begin();
    resume.take(bytes(logOf(5)));
    resume.begin();
    expect(() => {
      resume.take(bytes(later));
      resume.finish();
    }).toThrow("logs_gap");
  }
});
