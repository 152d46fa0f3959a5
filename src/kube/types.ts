import type {
  CoreV1Event,
  V1Container,
  V1ContainerStatus,
  V1PersistentVolumeClaim,
  V1Pod,
  V1Secret,
  V1Volume,
} from "@kubernetes/client-node";

/**
 * A type of @kubernetes/client-node as it travels in JSON: times are RFC 3339 strings there, where the library's classes
 * say Date. We neither parse nor write them through the library's serializer (slow, see docs/architecture.md).
 */
export type Wire<T> = T extends Date
  ? string
  : T extends (infer Item)[]
    ? Wire<Item>[]
    : T extends object
      ? { [Key in keyof T]: Wire<T[Key]> }
      : T;

export type Pod = Wire<V1Pod>;
export type Container = Wire<V1Container>;
export type ContainerStatus = Wire<V1ContainerStatus>;
export type Volume = Wire<V1Volume>;
export type Claim = Wire<V1PersistentVolumeClaim>;
export type Secret = Wire<V1Secret>;
/** A core/v1 Event. */
export type KubeEvent = Wire<CoreV1Event>;
