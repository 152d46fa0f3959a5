import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fromJson, type JsonValue } from "@bufbuild/protobuf";
import { parse, stringify } from "yaml";
import { StartWorkloadRequestSchema } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import type { Secret } from "../../src/kube/types.ts";
import { type Plan, type PlanSettings, planWorkload } from "../../src/pod/spec.ts";
import { settings, WORKLOAD_ID } from "./plans.ts";

/**
 * Requests with all that they must give in the cluster. Each file holds `rule` (what it shows), `settings` (besides those
 * of plans.ts), `request` (protobuf JSON; a main container when it names none) and `plan`. After a wanted change:
 *
 *     UPDATE_GOLDEN=1 bun test tests/pod/golden.test.ts && git diff tests/pod/golden
 *
 * writes every `plan` anew, for review. A new file needs only the other three keys.
 */
const directory = join(import.meta.dir, "golden");
const update = process.env.UPDATE_GOLDEN === "1";

/** The plan with the data of Secrets as text, for readers; what is not exactly its base64 stays and is seen. */
function readable(plan: Plan): unknown {
  const text = (base64: string): string => {
    const decoded = Buffer.from(base64, "base64").toString();
    return Buffer.from(decoded).toString("base64") === base64 ? decoded : base64;
  };
  const decoded = ({ data, ...secret }: Secret) => ({
    ...secret,
    dataAsText: Object.fromEntries(Object.entries(data ?? {}).map(([key, value]) => [key, text(value)])),
  });
  return JSON.parse(JSON.stringify({ ...plan, secrets: plan.secrets.map(decoded) }));
}

interface Golden {
  readonly rule: string;
  readonly settings?: Partial<PlanSettings>;
  readonly request: Record<string, JsonValue>;
  readonly plan: unknown;
}

function planOf({ request, settings: changes }: Golden): Plan {
  const whole = { main: { image: "app:1" }, workloadId: WORKLOAD_ID, ...request };
  return planWorkload(fromJson(StartWorkloadRequestSchema, whole), { ...settings, ...changes });
}

for (const file of readdirSync(directory).sort()) {
  const path = join(directory, file);
  const text = readFileSync(path, "utf8");
  const golden: Golden = parse(text);
  test(`${file}: ${golden.rule}`, async () => {
    const plan = readable(planOf(golden));
    if (update) await Bun.write(path, text.replace(/^plan:.*/ms, "") + stringify({ plan }, { lineWidth: 0 }));
    else expect(plan).toEqual(golden.plan);
  });
}

test("there are golden Pods to compare", () => {
  expect(readdirSync(directory).length).toBeGreaterThanOrEqual(60);
});
