import { expect } from "bun:test";
import { randomUUID } from "node:crypto";
import { podName } from "../../src/pod/names.ts";
import { until } from "../support/wait.ts";
import type { Rig, sharedCluster } from "./rig.ts";

type Cluster = ReturnType<typeof sharedCluster>;

/** Workloads, what happens to them while nobody looks, and what must be told of it. */
export class Happenings {
  readonly #cluster: Cluster;
  readonly changed = randomUUID();
  readonly removed = randomUUID();
  readonly again = randomUUID();
  readonly added = randomUUID();
  /** Is there all the time, and nothing happens to it. */
  readonly still = randomUUID();
  #former = new Map<string, string>();

  constructor(cluster: Cluster) {
    this.#cluster = cluster;
  }

  async prepare(): Promise<void> {
    for (const id of [this.changed, this.removed, this.again, this.still]) await this.#cluster.make(id);
    for (const id of [this.removed, this.again]) this.#former.set(id, (await this.#pod(id))?.metadata?.uid ?? "");
  }

  async happen(): Promise<void> {
    const { label, remove, make } = this.#cluster;
    for (const n of ["1", "2", "3"]) await label(this.changed, { n });
    await remove(this.removed);
    await remove(this.again);
    await make(this.again);
    await make(this.added);
    await label(this.added, { n: "3" });
  }

  /** Waits until all of it is told, from the change at `since` on, then checks that nothing is missing and nothing told twice. */
  async expectTold(rig: Pick<Rig, "watcher" | "changes">, since: number): Promise<void> {
    const wanted = new Map<string, string | undefined>();
    for (const id of [this.changed, this.removed, this.again, this.added])
      wanted.set(id, (await this.#pod(id))?.metadata?.resourceVersion);
    await until("the cache is as the cluster", () => {
      const right = [...wanted].every(([id, version]) => rig.watcher.peek(id)?.metadata?.resourceVersion === version);
      return right || undefined;
    });
    const told = (id: string) =>
      rig.changes
        .slice(since)
        .map((line) => line.split(" "))
        .filter(([, name]) => name === podName(id))
        .map(([type = "", , uid = "", version = ""]) => ({ type, uid, version }));
    for (const id of [this.changed, this.added]) {
      expect(told(id).map(({ type }) => type)).not.toContain("deleted");
      expectRising(told(id));
      expect(told(id).at(-1)?.version).toBe(wanted.get(id) ?? "gone");
    }
    const uid = (id: string) => this.#former.get(id) ?? "";
    const deleted = (id: string) => told(id).filter(({ type }) => type === "deleted");
    for (const id of [this.removed, this.again]) expect(deleted(id)).toMatchObject([{ uid: uid(id) }]);
    expect(told(this.removed).at(-1)?.type).toBe("deleted");
    const reborn = told(this.again).slice(told(this.again).findIndex(({ type }) => type === "deleted") + 1);
    expect(reborn.map((each) => each.uid)).not.toContain(uid(this.again));
    expectRising(reborn);
    expect(reborn.at(-1)?.version).toBe(wanted.get(this.again) ?? "gone");
    expect(told(this.still)).toEqual([]);
  }

  async #pod(id: string) {
    return await this.#cluster
      .backend()
      .admin.pods.get(podName(id))
      .catch(() => undefined);
  }
}

/** Each later than the one before: told once, and never back in time (I2). */
function expectRising(told: readonly { version: string }[]): void {
  const versions = told.map(({ version }) => BigInt(version));
  expect(versions.length).toBeGreaterThan(0);
  for (const [index, version] of versions.entries())
    if (index > 0) expect(version).toBeGreaterThan(versions[index - 1] ?? 0n);
}
