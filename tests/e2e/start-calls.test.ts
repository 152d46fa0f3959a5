import { describe, expect, test } from "bun:test";
import { VolumeKind } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { gatedRunner } from "../support/gated.ts";
import { freshId, idling, type StartRequest } from "../support/runner.ts";
import { refusal, until } from "../support/wait.ts";

const { runner, gate, behind } = gatedRunner();

const credential = { registry: "r.test", username: "u", password: "p" };

/** What one start asks of the API server, without the requests of the cache. */
async function callsOf(request: StartRequest): Promise<string[]> {
  const before = gate().requests.length;
  const { id } = await behind().client.startWorkload({
    main: idling(),
    ...request,
    additionalProperties: runner().ledger.mark,
  });
  runner().ledger.workload(id);
  return gate()
    .requests.slice(before)
    .filter((each) => !each.includes("labelSelector"))
    .map((each) => each.replace(/ .*\/namespaces\/[^/]+\//, " ").replace(id, "<id>"));
}

describe("a start asks the API server", () => {
  const volume = () => ({ name: "data", kind: VolumeKind.NAMED, persistentName: runner().ledger.claimName("calls") });

  test("once, when only the Pod is to be made", async () => {
    expect(await callsOf({})).toEqual(["POST pods"]);
  });

  test("for a new claim: whether it is there, the gated Pod, the claim, the gate", async () => {
    expect(await callsOf({ volumes: [volume()] })).toEqual([
      `GET persistentvolumeclaims/${volume().persistentName}`,
      "POST pods",
      "POST persistentvolumeclaims",
      "PATCH pods/workload-<id>",
    ]);
  });

  test("twice, when its claim is there", async () => {
    expect(await callsOf({ volumes: [volume()] })).toEqual([
      `GET persistentvolumeclaims/${volume().persistentName}`,
      "POST pods",
    ]);
  });

  test("for Secrets: the gated Pod, each Secret, the gate", async () => {
    expect(await callsOf({ imagePullCredentials: [credential, credential] })).toEqual([
      "POST pods",
      "POST secrets",
      "POST secrets",
      "PATCH pods/workload-<id>",
    ]);
  });

  test("nothing, when the request is bad", async () => {
    const before = gate().requests.length;
    const bad = {
      main: idling({ mounts: [{ volume: "nothing", mountPath: "/x" }] }),
      imagePullCredentials: [credential],
    };
    expect((await refusal(behind().client.startWorkload(bad))).code).toBe("InvalidArgument");
    expect(
      gate()
        .requests.slice(before)
        .filter((each) => !each.startsWith("GET")),
    ).toEqual([]);
  });
});

test("of fifty pairs of starts with one id each, one of every pair wins and keeps its Secret", async () => {
  const ids = Array.from({ length: 50 }, () => runner().ledger.workload(freshId()));
  const start = (workloadId: string, password: string) =>
    runner().client.startWorkload({
      workloadId,
      main: idling(),
      imagePullCredentials: [{ ...credential, password }],
      additionalProperties: runner().ledger.mark,
    });
  const outcomes = await Promise.all(
    ids.map(async (id) => {
      const pair = await Promise.allSettled([start(id, "first"), start(id, "second")]);
      const lost = pair.find(({ status }) => status === "rejected");
      const won = pair.findIndex(({ status }) => status === "fulfilled");
      const refused = lost?.status === "rejected" ? await refusal(Promise.reject(lost.reason)) : undefined;
      const pod = await runner().pod(id);
      const [secret, ...others] = await runner().secrets(id);
      const password = Buffer.from(secret?.data?.[".dockerconfigjson"] ?? "", "base64").toString();
      return {
        won: pair.filter(({ status }) => status === "fulfilled").length,
        refused: refused?.code,
        own:
          password.includes(won === 0 ? "first" : "second") &&
          secret?.metadata?.ownerReferences?.[0]?.uid === pod.metadata?.uid,
        others: others.length,
        gates: pod.spec?.schedulingGates?.length ?? 0,
      };
    }),
  );
  expect(outcomes).toEqual(ids.map(() => ({ won: 1, refused: "AlreadyExists", own: true, others: 0, gates: 0 })));
  await Promise.all(ids.map((workloadId) => runner().client.removeWorkload({ workloadId, force: true })));
  await until("all are gone", async () => {
    const left = await Promise.all(ids.map((id) => runner().ledger.podNamed(`workload-${id}`)));
    return left.every((pod) => pod === undefined) ? true : undefined;
  });
});
