/*
 * Preloaded into the process that is measured: how late its event loop is. A timer of TICK_MS is due, and what it comes later
 * than that is one sample. SIGUSR2 prints, as a line of JSON on stdout, `{ p99Ms, mostMs, samples }` of all since the last one.
 */
const TICK_MS = 10;

let samples: number[] = [];
let last = performance.now();
setInterval(() => {
  const now = performance.now();
  samples.push(Math.max(0, now - last - TICK_MS));
  last = now;
}, TICK_MS).unref();

process.on("SIGUSR2", () => {
  const sorted = samples.toSorted((a, b) => a - b);
  samples = [];
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
  console.log(JSON.stringify({ p99Ms: at(0.99), mostMs: at(1), samples: sorted.length }));
});
