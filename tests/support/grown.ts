const MEBIBYTE = 1024 * 1024;

/** The most that this process's resident memory grew while `work` ran, in MiB. */
export async function grown(work: () => Promise<unknown>): Promise<number> {
  Bun.gc(true);
  const before = process.memoryUsage().rss;
  let peak = before;
  const look = () => {
    peak = Math.max(peak, process.memoryUsage().rss);
  };
  const timer = setInterval(look, 5);
  await work();
  clearInterval(timer);
  look();
  return (peak - before) / MEBIBYTE;
}
