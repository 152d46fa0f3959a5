import { clusterAccess } from "../kube/access.ts";
import { KubeError } from "../kube/error.ts";
import { errorText } from "../log.ts";
import { type Check, type Finding, fail, ok, warn } from "./check.ts";
import type { Exam } from "./exam.ts";

/** The oldest minor version of Kubernetes 1 that works: exec sub-protocol v5 (ruling 14). */
const OLDEST_MINOR = 30;
/** A difference of clocks that is told, and one that breaks certificates and the order of reports. */
const SKEW_SECONDS = { told: 5, broken: 60 };

export const apiChecks: readonly Check[] = [
  { id: "access", needs: [], run: access },
  { id: "api", needs: ["access"], run: api },
  { id: "clock", needs: ["api"], run: clock },
  { id: "identity", needs: ["api"], run: identity },
];

async function access(exam: Exam): Promise<Finding> {
  const advice =
    "in a Pod: automountServiceAccountToken=true and serviceAccount.create=true; elsewhere: KUBECONFIG=<file>, as kubectl has it";
  try {
    exam.access = clusterAccess(exam.env);
    const { headers } = await exam.access.credentials();
    for (const value of Object.values(headers)) exam.hide(value.replace(/^(Bearer|Basic) /, ""));
  } catch (error) {
    return fail(errorText(error), advice);
  }
  return ok(`${exam.access.server.origin} by ${exam.access.source}`);
}

async function api(exam: Exam): Promise<Finding> {
  const where = exam.access.server.origin;
  try {
    const { major, minor, text } = await exam.cluster.version(exam.signal);
    exam.minor = minor;
    if (major === 1 && minor >= OLDEST_MINOR) return ok(`${where} answers, Kubernetes ${text}`);
    return fail(`Kubernetes ${text} is too old`, `upgrade the cluster to 1.${OLDEST_MINOR} or newer`);
  } catch (error) {
    if (!(error instanceof KubeError)) throw error;
    // Refused, and so reached: who we are is another check's matter.
    if (error.status === 401 || error.status === 403) return ok(`${where} answers, but does not tell its version`);
    if (error.status !== 0)
      return fail(`${where}: ${error.message}`, "look at the API server and at the proxies before it");
    return fail(`${where}: ${errorText(error)}`, unreachedAdvice(error, exam));
  }
}

/** Codes of OpenSSL, as Bun tells them. */
const CERTIFICATE_CODE = /CERT|SIGNATURE|SELF_SIGNED|ALTNAME|ISSUER/;

function unreachedAdvice({ cause }: KubeError, { access }: Exam): string {
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
  if (CERTIFICATE_CODE.test(code) || (cause instanceof Error && CERTIFICATE_CODE.test(cause.message.toUpperCase())))
    return `the certificate is not one that ${access.source} trusts: compare its CA with the API server's (openssl s_client -connect ${access.server.host} -showcerts)`;
  return `look whether this address is the API server's and can be reached from here: NetworkPolicies of the runner's namespace, firewalls, and the API server itself (kubectl get --raw /readyz)`;
}

function clock({ clock }: Exam): Finding {
  if (clock === undefined || Number.isNaN(clock.theirs))
    return warn("the API server's answers have no date", "look at the proxies before it");
  // The header has whole seconds, cut off.
  const difference = Math.round((clock.ours - clock.theirs - 500) / 1000);
  const seconds = Math.abs(difference);
  const seen = `ours is ${seconds} s ${difference < 0 ? "behind" : "ahead of"} the API server's`;
  const advice = "synchronise the clocks of the nodes and of the control plane (chronyc tracking; timedatectl)";
  if (seconds <= SKEW_SECONDS.told) return ok(seconds <= 1 ? "the same as the API server's" : seen);
  return seconds <= SKEW_SECONDS.broken
    ? warn(seen, advice)
    : fail(`${seen}: certificates, tokens and the order of state reports depend on it`, advice);
}

async function identity(exam: Exam): Promise<Finding> {
  const advice = {
    unknown:
      "get a token that is valid: restart the Pod (kubectl rollout restart deployment), or renew the kubeconfig's credentials",
    nobody:
      "mount the ServiceAccount's token (automountServiceAccountToken=true), or add credentials to the kubeconfig",
  };
  try {
    const { name } = await exam.cluster.whoAmI(exam.signal);
    if (name === "" || name === "system:anonymous") return fail("the API server takes us for nobody", advice.nobody);
    exam.user = name;
    return ok(name);
  } catch (error) {
    if (!(error instanceof KubeError)) throw error;
    if (error.status === 401)
      return fail(
        "the API server does not accept our credentials: the token is expired, revoked, or of another cluster",
        advice.unknown,
      );
    if (error.status !== 403) throw error;
    if (error.message.includes("system:anonymous")) return fail("the API server takes us for nobody", advice.nobody);
    return warn(
      `accepted, but not told as whom: ${error.message}`,
      "bind the ClusterRole system:basic-user to this user",
    );
  }
}
