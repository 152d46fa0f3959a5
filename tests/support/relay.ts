import type { Duplex } from "node:stream";

/**
 * Passes bytes both ways, and how each side ends: a reset resets the other, an end ends it once all that was sent before
 * has been taken. A close therefore destroys nothing: it comes as soon as one side is done, when a slow reader on the other
 * still has to take the last of it.
 */
export function relay(near: Duplex, far: Duplex): void {
  for (const [from, to] of [
    [near, far],
    [far, near],
  ] as const) {
    from.on("error", () => to.destroy());
    from.on("close", () => to.end());
    from.pipe(to);
  }
}
