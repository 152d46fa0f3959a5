import { connect } from "node:http2";
import { errorText } from "../log.ts";
import { boundedSignal } from "../time.ts";
import { type Check, type Finding, fail, ok, skip } from "./check.ts";
import type { Exam } from "./exam.ts";

export const gatewayChecks: readonly Check[] = [{ id: "gateway", needs: ["config"], run: gateway }];

/**
 * The platform's gateway is there and speaks HTTP/2. It is not asked anything: an enrollment would take the identity from
 * the runner that has it.
 */
async function gateway({ settings: { platform }, patienceMs, signal }: Exam): Promise<Finding> {
  if (platform === undefined) return skip("ZITI_ENABLED is not true");
  const { gatewayAddress, gatewayTls } = platform;
  const url = `${gatewayTls ? "https" : "http"}://${gatewayAddress}`;
  const advice = `GATEWAY_ADDRESS=host:port of the gateway's gRPC, GATEWAY_TLS=${gatewayTls ? "false when it speaks cleartext" : "true when it speaks TLS"}; NetworkPolicies and DNS of the runner's namespace must let it through`;
  using bound = boundedSignal(patienceMs, signal);
  const session = connect(url);
  try {
    await new Promise<void>((resolve, reject) => {
      session.once("remoteSettings", () => resolve());
      session.on("error", reject);
      session.once("close", () => reject(new Error("the connection was closed before an HTTP/2 answer")));
      bound.signal.addEventListener("abort", () => reject(bound.signal.reason), { once: true });
    });
    return ok(`${url} answers over HTTP/2 (not enrolled: that is the runner's alone)`);
  } catch (error) {
    signal.throwIfAborted();
    return fail(
      `${url}: ${bound.timedOut ? `no HTTP/2 answer within ${patienceMs / 1000} s` : errorText(error)}`,
      advice,
    );
  } finally {
    session.destroy();
  }
}
