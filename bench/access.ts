import { clusterAccess } from "../src/kube/access.ts";

/**
 * Prints, as JSON, how the runner would reach its cluster from this environment: `{ server, namespace, headers, tls }` with
 * PEM texts. For the load generator, whose raw baselines are to speak with the same rights.
 */
const access = clusterAccess(process.env);
const { headers, tls } = await access.credentials();
const namespace = process.env.KUBE_NAMESPACE || access.namespace || "default";
console.log(JSON.stringify({ server: access.server.origin, namespace, headers, tls }));
