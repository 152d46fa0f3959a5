import type { ExecChannel, Output } from "../../src/kube/channel.ts";
import { KubeError } from "../../src/kube/error.ts";

/** A channel that says this and takes everything; `status` undefined: it says no status, and stays open until it is closed. */
export function channelOf(outputs: readonly Output[], status: number | undefined): ExecChannel {
  const closed = Promise.withResolvers<undefined>();
  const left = outputs.values();
  const lost = async () => {
    await closed.promise;
    throw new KubeError(0, "", "closed by us");
  };
  const exitCode = status === undefined ? lost() : Promise.resolve(status);
  exitCode.catch(() => undefined); // not every test asks for it
  return {
    next: async () => left.next().value ?? (status === undefined ? await closed.promise : undefined),
    exitCode,
    slow: new Promise(() => undefined),
    write: async () => undefined,
    end: () => undefined,
    resize: () => undefined,
    close: () => closed.resolve(undefined),
    [Symbol.dispose]: () => closed.resolve(undefined),
  };
}
