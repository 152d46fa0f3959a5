import { KubeError } from "../kube/error.ts";
import type { Claim } from "../kube/types.ts";
import { MANAGED_SELECTOR } from "../pod/names.ts";
import type { Parts } from "./parts.ts";

/** Items a page: a page of claims stays under about 1 MiB. */
const PAGE_SIZE = 500;
/** A list whose continue token expired is begun again; a cluster where that happens more often cannot be listed. */
const LIST_ATTEMPTS = 3;

/**
 * Every claim of this runner, in the API's order, from one consistent list of the API server. Whole or not at all: a page
 * that cannot be had ends in an error, for a short list would make the platform delete what it does not see (ruling 5).
 */
export async function managedClaims({ kube }: Pick<Parts, "kube">, signal: AbortSignal): Promise<Claim[]> {
  for (let attempt = 1; ; attempt++) {
    try {
      const claims: Claim[] = [];
      let next: string | undefined;
      do {
        const page = await kube.claims.list({
          labelSelector: MANAGED_SELECTOR,
          limit: PAGE_SIZE,
          signal,
          ...(next === undefined ? {} : { continue: next }),
        });
        claims.push(...page.items);
        next = page.metadata.continue || undefined;
      } while (next !== undefined);
      return claims;
    } catch (error) {
      const expired = error instanceof KubeError && error.gone;
      if (!expired || attempt === LIST_ATTEMPTS) throw error;
    }
  }
}
