import type { Backend, PodChange } from "../support/backend.ts";
import { until } from "../support/wait.ts";

/** Every change of a managed Pod, as somebody else than the runner saw it. */
export interface Recording extends AsyncDisposable {
  readonly changes: readonly PodChange[];
}

/** The embedded cluster's own journal; of a real one what client-go sees (recorder/, built to `MODEL_RECORDER`). */
export async function startRecording(backend: Backend, env = process.env): Promise<Recording> {
  const changes: PodChange[] = [];
  if (backend.journal !== undefined) {
    const leave = backend.journal((change) => changes.push(change));
    return { changes, [Symbol.asyncDispose]: async () => leave() };
  }
  const { MODEL_RECORDER: program, E2E_KUBECONFIG: kubeconfig } = env;
  if (program === undefined || kubeconfig === undefined)
    throw new Error("on a real cluster MODEL_RECORDER must name the recorder (tests/model/long.sh builds it)");
  const child = Bun.spawn([program, kubeconfig, backend.namespace], { stdout: "pipe", stderr: "inherit" });
  let begun = false;
  const reading = (async () => {
    let rest = "";
    for await (const data of child.stdout) {
      const lines = (rest + Buffer.from(data).toString()).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) {
        if (begun) changes.push(JSON.parse(line));
        begun = true;
      }
    }
  })();
  await until("the recorder watches", () => begun || undefined);
  return {
    changes,
    async [Symbol.asyncDispose]() {
      child.kill("SIGINT");
      await Promise.all([child.exited, reading]);
    },
  };
}
