import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync } from "node:fs";
import { FakeGateway, KEY_LINE, SERVICE, TOKEN } from "./support/gateway.ts";
import { startMain } from "./support/main.ts";

/* The real companion under the real runner, as far as that goes without an OpenZiti network. Run by ziti/test.sh. */
setDefaultTimeout(60_000);
const COMPANION = "dist/k8s-runner-ziti";

test("the runner and the companion that was built understand each other", async () => {
  expect(existsSync(COMPANION)).toBe(true);
  const key = `pem:-----BEGIN EC PRIVATE KEY-----\n${KEY_LINE}\n-----END EC PRIVATE KEY-----\n`;
  const identity = { ztAPI: "https://127.0.0.1:1/edge/client/v1", id: { key, cert: "pem:none", ca: "" } };
  await using gateway = await FakeGateway.start({
    enroll: () => ({ identityJson: Buffer.from(JSON.stringify(identity)), serviceName: SERVICE }),
  });
  await using runner = startMain({
    KUBE_NAMESPACE: "workloads",
    KUBECONFIG: `${import.meta.dir}/support/nowhere.yaml`,
    GRPC_ADDR: "127.0.0.1:0",
    ZITI_ENABLED: "true",
    SERVICE_TOKEN: TOKEN,
    GATEWAY_ADDRESS: gateway.address,
    ZITI_COMPANION: COMPANION,
  });
  const { status, said } = await runner.end();
  expect(said).toStartWith("k8s-runner failed: create ziti context: ");
  expect(said).not.toContain("ziti companion: it"); // it told so itself, and did not just end
  expect([status, runner.text().includes(KEY_LINE)]).toEqual([1, false]);
});
