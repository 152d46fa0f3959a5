import { sections, type Variable } from "../../src/environment.ts";
import { code, table } from "./markdown.ts";

const HEAD = `# Configuration

The process is configured by its environment alone, which is read once, when it starts. Values are trimmed. A blank value is as good as
none, but for \`KUBE_NAMESPACE\`, \`PVC_STORAGE_SIZE\`, \`ZITI_ENABLED\`, \`GATEWAY_TLS\` and \`ZITI_ENROLLMENT_TIMEOUT\`, where it is refused.

\`k8s-runner check-config\` reads all of it, tells everything that is wrong and what would be right, and ends with 1; with 0 when nothing is.
A process that is started with a wrong configuration ends the same way: its last line is \`k8s-runner failed: load config: …\`, with a part
\`VARIABLE: what is wrong, what would be right\` for each problem.

The chart sets \`GRPC_ADDR\`, \`KUBE_NAMESPACE\`, \`CATALOG_PATH\`, \`WORKLOAD_POD_TEMPLATE\` and the \`TLS_…\` variables by values of its own; any variable
can be set by \`extraEnvVars\` ([values](../charts/k8s-runner/README.md)).

Access to the cluster is not configured here: inside of a Pod it is the mounted ServiceAccount; elsewhere the file that \`KUBECONFIG\` names, or
\`~/.kube/config\`. The start-up log says which (\`cluster access\`).
`;

const unset = ({ default: value, otherwise = "none" }: Variable): string =>
  value === undefined ? otherwise : code(value);

/** docs/configuration.md from the list that the parser reads by. */
export function configuration(): string {
  const tables = Object.entries(sections).map(([title, section]) => {
    const rows = Object.entries(section).map(([name, variable]: [string, Variable]) => [
      code(name),
      unset(variable),
      variable.form,
      variable.meaning,
    ]);
    return `## ${title}\n\n${table(["Variable", "Default", "Value", "Meaning"], rows)}\n`;
  });
  return [HEAD, ...tables].join("\n");
}
