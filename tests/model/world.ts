import { randomUUID } from "node:crypto";
import { podName } from "../../src/pod/names.ts";
import { waitingPod } from "../faults/rig.ts";
import type { Backend } from "../support/backend.ts";

/** Answers that are remembered for each workload. */
const REMEMBERED = 100;

/** When a Pod of one workload was certainly there: from the answer to its creation to the question for its deletion. */
interface Life {
  readonly id: string;
  readonly from: number;
  until: number;
}

/**
 * The workloads of a model run: what is done to them, at random, by one who is not the runner, and what follows for every
 * answer about them. Each write sets the label `n` to a number above all before it: an answer that tells a lower one than
 * an earlier answer went back in time.
 */
export class World {
  readonly ids: readonly string[];
  readonly #backend: Backend;
  readonly #random: () => number;
  readonly #lives = new Map<string, Life>();
  readonly #past: Life[] = [];
  /** For each workload the greatest `n` that was told, and when that answer had come. */
  readonly #told = new Map<string, { n: number; at: number }[]>();
  /** For each workload when answers had come that had it. */
  readonly #seen = new Map<string, number[]>();
  #n = 0;
  #busy = new Set<string>();
  steps = 0;
  readonly lies: string[] = [];

  constructor(backend: Backend, random: () => number, count: number) {
    this.#backend = backend;
    this.#random = random;
    this.ids = Array.from({ length: count }, () => randomUUID());
  }

  pick<T>(items: readonly T[]): T {
    const item = items[Math.floor(this.#random() * items.length)];
    if (item === undefined) throw new Error("nothing to pick from");
    return item;
  }

  /** One random write to one random workload. */
  async step(): Promise<void> {
    const id = this.pick(this.ids);
    const kind = this.#random();
    if (this.#busy.has(id)) return;
    this.#busy.add(id);
    try {
      await this.#write(id, kind);
      this.steps++;
    } finally {
      this.#busy.delete(id);
    }
  }

  async #write(id: string, kind: number): Promise<void> {
    if (!this.#lives.has(id)) return await this.#create(id);
    if (kind < 0.35) await this.#status(id);
    else if (kind < 0.75) await this.#label(id);
    else await this.#delete(id);
    if (kind > 0.9) await this.#create(id); // at once again, under the same name
  }

  async #create(id: string): Promise<void> {
    await this.#backend.admin.pods.create(waitingPod(id, { n: String(++this.#n) }));
    this.#lives.set(id, { id, from: performance.now(), until: Number.POSITIVE_INFINITY });
  }

  async #label(id: string): Promise<void> {
    await this.#backend.admin.pods.patch(podName(id), { metadata: { labels: { n: String(++this.#n) } } });
  }

  async #status(id: string): Promise<void> {
    const path = `/api/v1/namespaces/${this.#backend.namespace}/pods/${podName(id)}/status`;
    await this.#backend.ask("PATCH", path, { status: { message: `step ${++this.#n}` } });
  }

  async #delete(id: string): Promise<void> {
    const life = this.#lives.get(id);
    if (life === undefined) return;
    life.until = performance.now();
    this.#lives.delete(id);
    this.#past.push(life);
    await this.#backend.admin.pods.delete(podName(id), { gracePeriodSeconds: 0 });
  }

  /**
   * An answer without this workload, to a question that lasted from `start` to `end`: a lie when it was there all the time.
   * A list that `mayLag` may lack what others made so shortly before, but not what an answer before the question had.
   */
  absent(read: string, id: string, { start, end, mayLagMs }: { start: number; end: number; mayLagMs: number }): void {
    const toldSince = (from: number) => (this.#seen.get(id) ?? []).some((at) => at > from && at < start);
    const covers = ({ from, until }: Life) =>
      from <= start && until >= end && (from <= start - mayLagMs || toldSince(from));
    const now = this.#lives.get(id);
    if ((now !== undefined && covers(now)) || this.#past.some((life) => life.id === id && covers(life)))
      this.lies.push(`I1: ${read} told that ${id} is absent, and it was there`);
  }

  /** An answer that had this workload: when the question began to be asked, it may have been a former one of that name. */
  seen(id: string, start: number, end: number): void {
    const life = this.#lives.get(id);
    if (life === undefined || life.from > start) return;
    const seen = this.#seen.get(id) ?? [];
    this.#seen.set(id, seen);
    seen.push(end);
    if (seen.length > REMEMBERED) seen.shift();
  }

  /** An answer with this `n`: a lie when an answer that had come before the question told a greater one. */
  present(read: string, id: string, n: number, start: number, end: number): void {
    const told = this.#told.get(id) ?? [];
    this.#told.set(id, told);
    const later = told.find((each) => each.at < start && each.n > n);
    if (later !== undefined) this.lies.push(`I2: ${read} told n=${n} of ${id} after n=${later.n}`);
    const last = told.at(-1);
    if (last === undefined || n > last.n) told.push({ n, at: end });
    if (told.length > REMEMBERED) told.shift();
  }

  /** Everything that is there, removed. */
  async clear(): Promise<void> {
    for (const id of [...this.#lives.keys()]) await this.#delete(id);
  }
}
