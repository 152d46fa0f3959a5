/**
 * What comes with time, for one that takes it. By two steps and not by a promise of the next one: of what comes fast, each promise
 * costs more than the work with it.
 */
export interface Source<T> {
  /** The next that has come; undefined when there is none now. */
  take(): T | undefined;
  /** After a `take` that gave nothing: resolves when there may be something to take, or there will never be any more. */
  ready(): Promise<void>;
  /** Whether no more comes; what has come can still be taken. */
  readonly isOver: boolean;
}

/** The next, once it has come; undefined when no more comes. Rejects as `ready` does. */
export async function nextOf<T>(source: Source<T>): Promise<T | undefined> {
  for (;;) {
    const next = source.take();
    if (next !== undefined || source.isOver) return next;
    await source.ready();
  }
}

/** All that comes. */
export async function* allOf<T>(source: Source<T>): AsyncGenerator<T> {
  for (let next = await nextOf(source); next !== undefined; next = await nextOf(source)) yield next;
}
