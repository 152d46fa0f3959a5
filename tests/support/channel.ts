import type { ExecChannel, Output } from "../../src/kube/channel.ts";

/** A channel that says this and takes everything; `status` undefined: it says no status, and stays open. */
export function channelOf(outputs: readonly Output[], status: number | undefined): ExecChannel {
  const never = new Promise<never>(() => undefined);
  return {
    async *output() {
      yield* outputs;
      if (status === undefined) await never;
    },
    exitCode: status === undefined ? never : Promise.resolve(status),
    slow: never,
    write: async () => undefined,
    end: () => undefined,
    resize: () => undefined,
    close: () => undefined,
    [Symbol.dispose]: () => undefined,
  };
}
