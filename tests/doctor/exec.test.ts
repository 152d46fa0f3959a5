import { expect, test } from "bun:test";
import { Exam } from "../../src/doctor/exam.ts";
import { workloadChecks } from "../../src/doctor/workload.ts";
import type { ExecChannel } from "../../src/kube/channel.ts";
import type { Kube } from "../../src/kube/client.ts";

/** An exam whose cluster answers each exec by the next of these: what came of the output, and the exit code. */
function examWith(answers: readonly { lost: boolean; code: number }[]) {
  const left = [...answers];
  let ended = 0;
  const exec = async (): Promise<ExecChannel> => {
    const answer = left.shift();
    if (answer === undefined) throw new Error("more tries than answers");
    const typed: string[] = [];
    let isTaken = false;
    return {
      get isOver() {
        return answer.lost || isTaken;
      },
      take() {
        if (answer.lost || isTaken) return undefined;
        isTaken = true;
        return { stream: "stdout", data: Buffer.from(typed.join("")) };
      },
      ready: async () => undefined,
      exitCode: Promise.resolve(answer.code),
      slow: new Promise<void>(() => {}),
      write: async (data) => void typed.push(Buffer.from(data).toString()),
      end: () => void ended++,
      resize() {},
      close() {},
      [Symbol.dispose]() {},
    };
  };
  const options = { checks: [], json: false, image: "alpine:3.19", timeoutMs: 1000, volumes: false };
  const exam = new Exam({ env: {}, options, signal: new AbortController().signal });
  const kube: Pick<Kube, "exec"> = { exec };
  Object.defineProperty(exam, "kube", { value: kube });
  return { exam, left, ended: () => ended };
}

const check = workloadChecks.find(({ id }) => id === "exec");

test("a command whose output the cluster loses is tried again, and what is lost each time is a failure", async () => {
  const lost = { lost: true, code: 0 };
  const once = examWith([lost, lost, { lost: false, code: 7 }]);
  expect(await check?.run(once.exam)).toMatchObject({ status: "ok" });
  expect([once.left, once.ended()]).toEqual([[], 1]);
  const always = examWith([lost, lost, lost]);
  expect(await check?.run(always.exam)).toMatchObject({
    status: "FAIL",
    seen: expect.stringContaining('"", its exit code 7 as 0'),
  });
  const wrong = { lost: false, code: 1 };
  expect(await check?.run(examWith([wrong, wrong, wrong]).exam)).toMatchObject({ status: "FAIL" });
});
