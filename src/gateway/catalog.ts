import type { Catalog } from "../catalog.ts";
import type { DockerImplementation } from "../config.ts";
import type { CatalogReport, Gateway } from "./client.ts";
import { type RetryOptions, retried } from "./retry.ts";

/**
 * What the platform is told of the catalog (process.md 4.3): entries in order and without their Kubernetes mapping;
 * capabilities each once and sorted, with `docker` among them when this runner can do it, since the platform places no
 * agent that needs it otherwise.
 */
export function catalogReportOf(
  { flavors, storageClasses, capabilities }: Catalog,
  docker: DockerImplementation | undefined,
): CatalogReport & { capabilities: string[] } {
  const names = new Set(capabilities.map((name) => name.trim()).filter((name) => name !== ""));
  if (docker !== undefined) names.add("docker");
  return {
    flavors: flavors.map((flavor) => ({ ...flavor })),
    storageClasses: storageClasses.map(({ storageClassName: _, ...told }) => told),
    capabilities: [...names].sort(),
  };
}

/** Reports the catalog, an empty one too: it replaces the stored one. Never throws: the runner serves without it. */
export async function reportCatalog(
  gateway: Pick<Gateway, "reportCatalog">,
  report: CatalogReport,
  options: Omit<RetryOptions, "operation">,
): Promise<void> {
  const { log, signal } = options;
  const { flavors = [], storageClasses = [], capabilities = [] } = report;
  const counts = {
    flavors: flavors.length,
    storageClasses: storageClasses.length,
    capabilities: capabilities.length,
  };
  try {
    await retried((limits) => gateway.reportCatalog(report, limits), { ...options, operation: "report catalog" });
    log.info(counts, "catalog reported");
  } catch (error) {
    if (!signal.aborted) log.error({ error }, "catalog report failed; serving without it");
  }
}
