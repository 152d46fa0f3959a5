/** What is to be sent, in order, to one reader that takes it when it can. */
export class Outbox<T> implements AsyncIterable<T> {
  readonly #items: { readonly item: T; readonly taken: () => void }[] = [];
  #closed = false;
  #wake: () => void = () => {};

  /** Resolves when the reader has taken it and asks for the next: who produces faster than the reader waits here. */
  put(item: T): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#items.push({ item, taken: resolve });
    this.#wake();
    return promise;
  }

  /** Ends the reading, after what was put before. */
  close(): void {
    this.#closed = true;
    this.#wake();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    for (;;) {
      const next = this.#items.shift();
      if (next !== undefined) {
        yield next.item;
        next.taken();
      } else if (this.#closed) return;
      else {
        const { promise, resolve } = Promise.withResolvers<void>();
        this.#wake = resolve;
        await promise;
      }
    }
  }
}
