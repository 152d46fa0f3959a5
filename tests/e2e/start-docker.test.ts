import { describe, expect, test } from "bun:test";
import type { Pod } from "../../src/kube/types.ts";
import { idling, type StartRequest, sharedRunner } from "../support/runner.ts";
import { refusal } from "../support/wait.ts";

// What of 6.2.7 a real API server keeps; the whole Pods are in tests/pod/golden.
describe.each(["rootless", "privileged"])("docker as %s", (implementation) => {
  const runner = sharedRunner(() => ({
    env: { CAPABILITY_IMPLEMENTATIONS: JSON.stringify({ docker: implementation }) },
  }));

  test("puts the daemon beside main, as a sidecar that is told, and points main at it", async () => {
    const { id, containers } = await runner().start({
      capabilities: [" Docker ", "docker"],
      main: idling({ env: [{ name: "DOCKER_HOST", value: "elsewhere" }] }),
      sidecars: [idling()],
    });
    expect(containers?.sidecars.map(({ name }) => name)).toEqual(["sidecar-1", "docker-daemon"]);
    const { spec, metadata }: Pod = await runner().pod(id);
    const [main, , daemon] = spec?.containers ?? [];
    expect(main?.env).toEqual([{ name: "DOCKER_HOST", value: "tcp://localhost:2375" }]);
    expect(daemon).toMatchObject({ name: "docker-daemon", env: [{ name: "DOCKER_TLS_CERTDIR" }] });
    if (implementation === "privileged") {
      expect(daemon).toMatchObject({
        image: "docker:27-dind",
        securityContext: { privileged: true },
        volumeMounts: [{ name: "docker-data", mountPath: "/var/lib/docker" }],
      });
      return;
    }
    expect(daemon?.image).toBe("docker:27-dind-rootless");
    expect(daemon?.securityContext).toMatchObject({
      allowPrivilegeEscalation: true,
      procMount: "Unmasked",
      seccompProfile: { type: "Unconfined" },
      appArmorProfile: { type: "Unconfined" },
    });
    expect(daemon?.volumeMounts?.map(({ mountPath }) => mountPath)).toEqual([
      "/home/rootless/.local/share",
      "/run/user/1000",
      "/dev/net/tun",
      "/etc/subuid",
      "/etc/subgid",
    ]);
    expect(spec).toMatchObject({ hostUsers: false, initContainers: [{ name: "docker-subid-init" }] });
    expect(Object.values(metadata?.annotations ?? {})).toContain("unconfined");
  });
});

describe("names that docker needs for itself", () => {
  const runner = sharedRunner(() => ({ env: { CAPABILITY_IMPLEMENTATIONS: '{"docker":"rootless"}' } }));

  const rows: [StartRequest, string][] = [
    [{ sidecars: [idling({ name: "docker-daemon" })] }, "capability_container_name_conflict: docker-daemon"],
    [{ main: idling({ name: " docker-daemon " }) }, "capability_container_name_conflict: docker-daemon"],
    [
      { initContainers: [idling({ name: "docker-subid-init" })] },
      "capability_container_name_conflict: docker-subid-init",
    ],
    ...["docker-data", "docker-run", "docker-tun", "docker-subid"].map(
      (name) =>
        [{ volumes: [{ name, kind: 1 as const }] }, `capability_volume_name_conflict: ${name}`] satisfies [
          StartRequest,
          string,
        ],
    ),
  ];
  test.each(rows)("%p is refused", async (request, message) => {
    expect(await refusal(runner().start({ ...request, capabilities: ["docker"] }))).toEqual({
      code: "InvalidArgument",
      message,
    });
  });
});

describe("without an implementation", () => {
  const runner = sharedRunner();

  test.each([
    [["docker"], "docker_capability_not_configured"],
    [["gpu"], "unknown_capability: gpu"],
    [["gpu", " "], "capability_required"],
  ])("%p is refused", async (capabilities, message) => {
    expect(await refusal(runner().start({ capabilities }))).toEqual({ code: "InvalidArgument", message });
  });
});
