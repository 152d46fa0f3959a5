import type { Container, Pod } from "../../../src/kube/types.ts";

/** Why a kubelet would not make this container, in its words; undefined when it would. All images run as root. */
export function startProblem(
  { name, image = "", imagePullPolicy }: Container,
  securityContext: NonNullable<Pod["spec"]>["securityContext"],
): { reason: string; message: string } | undefined {
  if (!isImage(image))
    return {
      reason: "InvalidImageName",
      message: `Failed to apply default image tag "${image}": couldn't parse image name "${image}": invalid reference format`,
    };
  if (isMissing(image) && imagePullPolicy === "Never")
    return {
      reason: "ErrImageNeverPull",
      message: `Container image "${image}" is not present with pull policy of Never`,
    };
  if (isMissing(image))
    return {
      reason: "ErrImagePull",
      message: `failed to pull and unpack image "${image}": failed to resolve reference "${image}": not found`,
    };
  if (securityContext?.runAsNonRoot === true && !securityContext.runAsUser)
    return {
      reason: "CreateContainerConfigError",
      message: `container has runAsNonRoot and image will run as root (container: ${name})`,
    };
  return undefined;
}

const isMissing = (image: string): boolean => /missing|\.invalid\//.test(image);

/** A reference as the container runtime parses it: lower-case path, then a tag, a digest or both. */
const isImage = (image: string): boolean =>
  /^[a-z0-9]+([._:/-]+[a-z0-9]+)*(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?$/.test(image);
