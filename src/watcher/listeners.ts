import type { Log } from "../log.ts";
import type { Change } from "./cache.ts";

type Listener = (change: Change) => void;

/** Who is told of changes, in the order of their coming. One that throws is logged and kept. */
export class Listeners {
  readonly #log: Log;
  readonly #all = new Set<Listener>();

  constructor(log: Log) {
    this.#log = log;
  }

  /** Returns the way to end it. */
  add(listener: Listener): () => void {
    const own: Listener = (change) => listener(change); // so that one function can be added twice
    this.#all.add(own);
    return () => void this.#all.delete(own);
  }

  tell(change: Change): void {
    for (const listener of [...this.#all]) this.call(listener, change);
  }

  call(listener: Listener, change: Change): void {
    try {
      listener(change);
    } catch (error) {
      this.#log.error({ error }, "a listener of Pod changes failed");
    }
  }
}
