import { expect, test } from "bun:test";
import { catalogFrom, NO_CATALOG } from "../src/catalog.ts";

const resources = { requestsCpu: "500m", requestsMemory: "2Gi", limitsCpu: 2, limitsMemory: "4Gi" };
const flavor = { name: "ram-2gb", resources };
const problemsOf = (document: unknown) => catalogFrom(document).problems.map(({ wrong }) => wrong);
const withResources = (more: object) => ({ flavors: [{ name: "f", resources: { ...resources, ...more } }] });

const yaml = `
flavors:
  - name: ram-2gb
    default: true
    resources: { requestsCpu: 500m, requestsMemory: 2Gi, limitsCpu: 2, limitsMemory: 4Gi }
  - name: ram-4gb
    deprecated: true
    resources: { requestsCpu: "1", requestsMemory: 4Gi, limitsCpu: "2", limitsMemory: 4Gi }
storageClasses:
  - { name: default, default: true }
  - { name: fast, storageClassName: nvme, deprecated: true }
capabilities: [" docker ", gpu]
`;

const expected = {
  flavors: [
    {
      name: "ram-2gb",
      default: true,
      deprecated: false,
      resources: { requestsCpu: "500m", requestsMemory: "2Gi", limitsCpu: "2", limitsMemory: "4Gi" },
    },
    {
      name: "ram-4gb",
      default: false,
      deprecated: true,
      resources: { requestsCpu: "1", requestsMemory: "4Gi", limitsCpu: "2", limitsMemory: "4Gi" },
    },
  ],
  storageClasses: [
    { name: "default", storageClassName: "", default: true, deprecated: false },
    { name: "fast", storageClassName: "nvme", default: false, deprecated: true },
  ],
  capabilities: ["docker", "gpu"],
};

test("a whole catalog is read in order, in camel case and in snake case, with and without the enclosing key", () => {
  const snake = yaml.replace(/[a-z][A-Z]/g, ([first = "", second = ""]) => `${first}_${second.toLowerCase()}`);
  expect(snake).toContain("storage_class_name: nvme");
  for (const text of [yaml, snake]) {
    const document: unknown = Bun.YAML.parse(text);
    for (const form of [document, { catalog: document }])
      expect(catalogFrom(form)).toEqual({ catalog: expected, problems: [] });
  }
});

test("an empty document, and empty sections, are an empty catalog", () => {
  for (const document of [null, undefined, {}, { catalog: null }, { flavors: null, capabilities: [] }])
    expect(catalogFrom(document)).toEqual({ catalog: NO_CATALOG, problems: [] });
});

/** Rows of process.md's table 4.2, and what the platform itself would refuse. */
test.each([
  ["flavors[].name", { flavors: [{ ...flavor, name: " " }] }, ["flavor name is empty"]],
  ["flavors[].name", { flavors: [{ resources }] }, ["flavor name is empty"]],
  ["flavors[].name", { flavors: [flavor, flavor, flavor] }, ['flavor "ram-2gb" is declared more than once']],
  [
    "flavors[].name",
    {
      flavors: [
        { ...flavor, name: "Big" },
        { ...flavor, name: "x".repeat(65) },
      ],
    },
    ['flavor name "Big" is not a name', `flavor name "${"x".repeat(65)}" is not a name`],
  ],
  [
    "flavors[].default",
    { flavors: [1, 2, 3].map((index) => ({ ...flavor, name: `f${index}`, default: index > 1 })) },
    ["at most one flavor may be default, got 2"],
  ],
  [
    "flavors[].default",
    { flavors: [{ ...flavor, default: "yes" }] },
    ['flavor "ram-2gb": default must be true or false'],
  ],
  [
    "flavors[].deprecated",
    { flavors: [{ ...flavor, deprecated: 1 }] },
    ['flavor "ram-2gb": deprecated must be true or false'],
  ],
  ["flavors[].resources", withResources({ requestsCpu: " " }), ['flavor "f": requestsCpu is empty']],
  ["flavors[].resources", withResources({ requestsMemory: null }), ['flavor "f": requestsMemory is empty']],
  ["flavors[].resources", withResources({ limitsCpu: undefined }), ['flavor "f": limitsCpu is empty']],
  ["flavors[].resources", withResources({ limitsMemory: "" }), ['flavor "f": limitsMemory is empty']],
  [
    "flavors[].resources",
    withResources({ limitsMemory: "4GG" }),
    [`flavor "f": limitsMemory "4GG": unable to parse quantity's suffix`],
  ],
  ["storageClasses[].name", { storageClasses: [{ name: "" }] }, ["storage class name is empty"]],
  [
    "storageClasses[].name",
    { storageClasses: [{ name: "a" }, { name: "a" }] },
    ['storage class "a" is declared more than once'],
  ],
  [
    "storageClasses[].storageClassName",
    { storageClasses: [{ name: "a", storageClassName: ["x"] }] },
    ['storage class "a": storageClassName must be a string'],
  ],
  [
    "storageClasses[].default",
    {
      storageClasses: [
        { name: "a", default: true },
        { name: "b", default: true },
      ],
    },
    ["at most one storage class may be default, got 2"],
  ],
  [
    "storageClasses[].deprecated",
    { storageClasses: [{ name: "a", deprecated: "no" }] },
    ['storage class "a": deprecated must be true or false'],
  ],
  ["capabilities[]", { capabilities: ["GPU", "", " "] }, ['capability "GPU" is not a name']],
  ["capabilities[]", { capabilities: [{}] }, ["a capability must be a string"]],
  ["unknown keys", { flavours: [] }, ['the catalog: unknown key "flavours"']],
  ["unknown keys", { catalog: {}, flavors: [] }, ['the catalog: unknown key "catalog"']],
  ["unknown keys", { flavors: [{ ...flavor, cpu: 1 }] }, ['a flavor: unknown key "cpu"']],
  ["both spellings", { storageClasses: [], storage_classes: [] }, ["the catalog: storageClasses is given twice"]],
  ["kinds", { flavors: { name: "a" } }, ["flavors must be a list"]],
  ["kinds", [flavor], ["the catalog must be a mapping"]],
])("table 4.2, %s: %j is refused", (_row, document, problems) => {
  expect(problemsOf(document)).toEqual(problems);
});

test("everything that is wrong is told at once, and what would be right", () => {
  const { problems } = catalogFrom({ flavors: [{ name: "A", resources }], storageClasses: [{}], capabilities: ["_"] });
  expect(problems.map(({ wrong, right }) => `${wrong}, ${right}`)).toEqual([
    'flavor name "A" is not a name, use 1 to 64 lower-case letters, digits and dashes',
    "storage class name is empty, give all storage classes a name",
    'capability "_" is not a name, use 1 to 64 lower-case letters, digits and dashes',
  ]);
});
