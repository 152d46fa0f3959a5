import { randomUUID } from "node:crypto";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import type { Config } from "../config.ts";
import { StartWorkloadRequestSchema } from "../gen/agynio/api/runner/v1/runner_pb.ts";
import type { Access } from "../kube/access.ts";
import { Kube } from "../kube/client.ts";
import { Cluster } from "../kube/cluster.ts";
import type { KubeError } from "../kube/error.ts";
import { Transport } from "../kube/request.ts";
import type { KubeEvent, Pod } from "../kube/types.ts";
import { createLog } from "../log.ts";
import { type Plan, planWorkload } from "../pod/spec.ts";
import { redact, Secret } from "../secret.ts";
import { planSettingsFrom } from "../settings.ts";
import type { Environment } from "../variables.ts";
import type { Admission } from "./admission.ts";
import type { Check, Right } from "./check.ts";
import type { Probe } from "./probe.ts";
import type { Witness } from "./witness.ts";

/** A request, its retries included, is over by then: who waits for the doctor is a person. */
const REQUEST_MS = 10_000;

/** What the person who asks wants. */
export interface Options {
  readonly checks: readonly Check[];
  readonly json: boolean;
  /** Of the probe Pods: one with /bin/sh. */
  readonly image: string;
  /** How long a probe Pod may take until it runs. */
  readonly timeoutMs: number;
  /** Whether a volume is made and removed. */
  readonly volumes: boolean;
}

/** How long an answer may take: of a stream about a running Pod, of the gateway, of who has our port. */
const PATIENCE_MS = 10_000;

/** What the checks share: what they were told, and what earlier ones have found out for later ones. */
export class Exam {
  readonly env: Environment;
  readonly options: Options;
  /** Aborted when the process is to end. */
  readonly signal: AbortSignal;
  /** How long an answer may take, in ms. */
  readonly patienceMs: number;
  /** Set by `config`. */
  config: Config | undefined;
  /** Minor version of Kubernetes 1; set by `api`. */
  minor: number | undefined;
  /** Who the API server takes us for; set by `identity`. */
  user: string | undefined;
  /** Rights that the runner lacks, as far as it may ask; set by `namespace`. */
  denied: ReadonlySet<Right> = new Set();
  /** Whether the API server tells us what we may do; set by `namespace`. */
  reviewed = false;
  /** What a dry run says of what the runner would make; set by `namespace`. */
  admission: Admission = {};
  /** The probe Pod; set by `pod`. */
  probe: Probe | undefined;
  /** Watches that were begun before the probe Pod was made, or why they could not be; set by `pod`. */
  readonly watches: { pod?: Witness<Pod> | KubeError; events?: Witness<KubeEvent> | KubeError } = {};
  /** Date of the API server's last answer, and what our clock said then, in Unix ms. */
  clock: { readonly theirs: number; readonly ours: number } | undefined;
  /** What is to be removed in the end, and did not go by itself. */
  readonly leftBehind: (() => Promise<void>)[] = [];
  /** Probe objects that were removed, ours and those of earlier runs. */
  removed = 0;
  readonly #secrets: Secret[] = [];
  #access: Access | undefined;
  #kube: Kube | undefined;
  #cluster: Cluster | undefined;

  constructor({
    env,
    options,
    signal,
    patienceMs = PATIENCE_MS,
  }: { env: Environment; options: Options; signal: AbortSignal; patienceMs?: number | undefined }) {
    this.patienceMs = patienceMs;
    this.env = env;
    this.options = options;
    this.signal = signal;
  }

  get access(): Access {
    return this.#access ?? missing("access");
  }

  set access(access: Access) {
    this.#access = access;
    const transport = new Transport({
      access,
      requestMs: REQUEST_MS,
      onRequest: ({ date }) => {
        if (date !== undefined) this.clock = { theirs: Date.parse(date), ours: Date.now() };
      },
    });
    this.#cluster = new Cluster(transport);
  }

  get cluster(): Cluster {
    return this.#cluster ?? missing("access");
  }

  /** The API of the workload namespace, as the runner has it. */
  get kube(): Kube {
    this.#kube ??= new Kube({
      access: this.access,
      namespace: this.namespace,
      log: createLog({ level: "silent" }),
      timing: { requestMs: REQUEST_MS },
    });
    return this.#kube;
  }

  get settings(): Config {
    return this.config ?? missing("config");
  }

  get namespace(): string {
    return this.settings.namespace;
  }

  /** What StartWorkload would make of this request. */
  planFor(request: MessageInitShape<typeof StartWorkloadRequestSchema>, image = this.options.image): Plan {
    const settings = planSettingsFrom({ ...this.settings, dockerImages: { rootless: image, dind: image } });
    const ids = { newWorkloadId: randomUUID(), nonce: randomUUID() };
    return planWorkload(create(StartWorkloadRequestSchema, request), { ...settings, ...ids });
  }

  /** From now on this text is printed nowhere. */
  hide(text: string): void {
    if (text.length >= MIN_SECRET) this.#secrets.push(new Secret(text));
  }

  redacted(text: string): string {
    return redact(text, this.#secrets);
  }
}

/** A shorter text could be part of any word. */
const MIN_SECRET = 6;

/** A check that uses what another one finds names it among its needs. */
function missing(check: string): never {
  throw new Error(`bug: used before the check ${check}`);
}
