import { snakeCase } from "./naming.ts";
import { quantityProblem, quoted } from "./pod/validate.ts";

/** What the runner offers, as its deployment declares it in CATALOG_PATH (process.md section 4). */
export interface Catalog {
  readonly flavors: readonly Flavor[];
  readonly storageClasses: readonly StorageClass[];
  /** As declared; what the platform is told adds what this runner can do (gateway/catalog.ts). */
  readonly capabilities: readonly string[];
}

export interface Flavor {
  readonly name: string;
  /** Kubernetes quantities. */
  readonly resources: Readonly<Record<(typeof RESOURCES)[number], string>>;
  readonly default: boolean;
  readonly deprecated: boolean;
}

export interface StorageClass {
  readonly name: string;
  /** The Kubernetes StorageClass, never told to the platform; empty: the cluster's default. */
  readonly storageClassName: string;
  readonly default: boolean;
  readonly deprecated: boolean;
}

/** What is wrong with a catalog, and what would be right. */
export interface CatalogProblem {
  readonly wrong: string;
  readonly right: string;
}

export const NO_CATALOG: Catalog = { flavors: [], storageClasses: [], capabilities: [] };

const RESOURCES = ["requestsCpu", "requestsMemory", "limitsCpu", "limitsMemory"] as const;
const SECTIONS = ["flavors", "storageClasses", "capabilities"];
const FLAVOR_KEYS = ["name", "default", "deprecated", "resources"];
const STORAGE_CLASS_KEYS = ["name", "storageClassName", "default", "deprecated"];

/** The platform's own rule for names of flavors, storage classes and capabilities. */
const NAME = /^[a-z0-9-]{1,64}$/;
const NAME_RULE = "use 1 to 64 lower-case letters, digits and dashes";

/**
 * The catalog of a parsed YAML document, and everything that is wrong with it (the catalog is of use only when that is
 * nothing). Keys are camel case; snake case and one enclosing key `catalog` are taken as well, unknown keys are not.
 */
export function catalogFrom(document: unknown): { catalog: Catalog; problems: readonly CatalogProblem[] } {
  const reader = new Reader();
  const top = isFields(document) && Object.keys(document).join() === "catalog" ? document.catalog : document;
  const { flavors, storageClasses, capabilities } = reader.fields(top, "the catalog", SECTIONS);
  const catalog = {
    flavors: reader.list(flavors, "flavors").map((entry) => reader.flavor(entry)),
    storageClasses: reader.list(storageClasses, "storageClasses").map((entry) => reader.storageClass(entry)),
    capabilities: reader.list(capabilities, "capabilities").map((entry) => reader.text(entry, "a capability").trim()),
  };
  reader.check("flavor", "flavors", catalog.flavors);
  reader.check("storage class", "storage classes", catalog.storageClasses);
  for (const name of catalog.capabilities)
    if (name !== "" && !NAME.test(name)) reader.wrong(`capability ${quoted(name)} is not a name`, NAME_RULE);
  return { catalog, problems: reader.problems };
}

type Fields = { readonly [key: string]: unknown };

const isFields = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** Values by their kind; what is not of it is noted, and something of that kind answered in its place. */
class Reader {
  readonly problems: CatalogProblem[] = [];

  wrong(wrong: string, right: string): void {
    this.problems.push({ wrong, right });
  }

  flavor(entry: unknown): Flavor {
    const { name, resources, ...rest } = this.fields(entry, "a flavor", FLAVOR_KEYS);
    const of = `flavor ${quoted(this.text(name, "a flavor's name"))}`;
    const given = this.fields(resources, `${of}: resources`, RESOURCES);
    const quantity = (key: (typeof RESOURCES)[number]): string => {
      const text = this.text(given[key], `${of}: ${key}`).trim();
      const problem = text === "" ? undefined : quantityProblem(text);
      if (text === "") this.wrong(`${of}: ${key} is empty`, "give all four quantities, such as 500m or 2Gi");
      if (problem !== undefined) this.wrong(`${of}: ${key} ${quoted(text)}: ${problem}`, "such as 500m or 2Gi");
      return text;
    };
    return {
      name: this.text(name, ""),
      default: this.flag(rest.default, `${of}: default`),
      deprecated: this.flag(rest.deprecated, `${of}: deprecated`),
      resources: {
        requestsCpu: quantity("requestsCpu"),
        requestsMemory: quantity("requestsMemory"),
        limitsCpu: quantity("limitsCpu"),
        limitsMemory: quantity("limitsMemory"),
      },
    };
  }

  storageClass(entry: unknown): StorageClass {
    const { name, storageClassName, ...rest } = this.fields(entry, "a storage class", STORAGE_CLASS_KEYS);
    const of = `storage class ${quoted(this.text(name, "a storage class's name"))}`;
    return {
      name: this.text(name, ""),
      storageClassName: this.text(storageClassName, `${of}: storageClassName`).trim(),
      default: this.flag(rest.default, `${of}: default`),
      deprecated: this.flag(rest.deprecated, `${of}: deprecated`),
    };
  }

  /** What holds for a whole section: names that are names, each once, and one default. */
  check(kind: string, kinds: string, entries: readonly { name: string; default: boolean }[]): void {
    const seen = new Set<string>();
    const repeated = new Set<string>();
    for (const { name } of entries) {
      if (name.trim() === "") this.wrong(`${kind} name is empty`, `give all ${kinds} a name`);
      else if (!NAME.test(name)) this.wrong(`${kind} name ${quoted(name)} is not a name`, NAME_RULE);
      else if (seen.has(name)) repeated.add(name);
      seen.add(name);
    }
    for (const name of repeated)
      this.wrong(`${kind} ${quoted(name)} is declared more than once`, "keep one of them or rename the others");
    const defaults = entries.filter((entry) => entry.default).length;
    if (defaults > 1) this.wrong(`at most one ${kind} may be default, got ${defaults}`, "leave it true in one of them");
  }

  /** A mapping with no other keys than these, by their camel case; nothing counts as an empty one. */
  fields(value: unknown, what: string, known: readonly string[]): Fields {
    if (value === undefined || value === null) return {};
    if (!isFields(value)) {
      this.wrong(`${what} must be a mapping`, `its keys are ${known.join(", ")}`);
      return {};
    }
    const read: [string, unknown][] = [];
    for (const [key, field] of Object.entries(value)) {
      const name = known.find((candidate) => candidate === key || snakeCase(candidate) === key);
      if (name === undefined) this.wrong(`${what}: unknown key ${quoted(key)}`, `known are ${known.join(", ")}`);
      else if (read.some(([other]) => other === name))
        this.wrong(`${what}: ${name} is given twice`, "keep one of them");
      else read.push([name, field]);
    }
    return Object.fromEntries(read);
  }

  list(value: unknown, what: string): readonly unknown[] {
    if (value === undefined || value === null) return [];
    if (Array.isArray(value)) return value;
    this.wrong(`${what} must be a list`, "begin each of its entries with a dash");
    return [];
  }

  /** A string; YAML reads quantities such as 2 as numbers. An empty `what` notes nothing. */
  text(value: unknown, what: string): string {
    if (value === undefined || value === null) return "";
    if (typeof value === "string" || typeof value === "number") return String(value);
    if (what !== "") this.wrong(`${what} must be a string`, "put it in quotes");
    return "";
  }

  flag(value: unknown, what: string): boolean {
    if (value === undefined || value === null || typeof value === "boolean") return value ?? false;
    this.wrong(`${what} must be true or false`, "write it without quotes");
    return false;
  }
}
