import type { ExecChannel, Output } from "../../src/kube/channel.ts";
import { KubeError } from "../../src/kube/error.ts";

/** A channel that says this and takes everything; `status` undefined: it says no status, and stays open until it is closed. */
export function channelOf(outputs: readonly Output[], status: number | undefined): ExecChannel {
  const closed = Promise.withResolvers<void>();
  const left = [...outputs];
  let isOver = false;
  const close = () => {
    isOver = true;
    closed.resolve();
  };
  const lost = async () => {
    await closed.promise;
    throw new KubeError(0, "", "closed by us");
  };
  const exitCode = status === undefined ? lost() : Promise.resolve(status);
  exitCode.catch(() => undefined); // not every test asks for it
  return {
    get isOver() {
      return isOver || (status !== undefined && left.length === 0);
    },
    take: () => left.shift(),
    ready: () => closed.promise,
    exitCode,
    slow: new Promise(() => undefined),
    write: async () => undefined,
    end: () => undefined,
    resize: () => undefined,
    close,
    [Symbol.dispose]: close,
  };
}
