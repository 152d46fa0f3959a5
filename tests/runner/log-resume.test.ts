import { expect, test } from "bun:test";
import fc from "fast-check";
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
