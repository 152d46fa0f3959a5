/**
 * A certificate authority and a server certificate of its own, made at start with node:crypto alone, so that the
 * embedded cluster needs no openssl. X.509 v3 (RFC 5280) in DER (X.690), keys on P-256, signed with ECDSA and SHA-256.
 */
import { createHash, generateKeyPairSync, type KeyObject, randomBytes, sign } from "node:crypto";

export interface TlsMaterial {
  readonly caPem: string;
  readonly certPem: string;
  readonly keyPem: string;
}

/** Valid from a day ago (clocks differ) for a year: longer than any test or demo, and within what clients accept. */
const DAY_MS = 86_400_000;
const VALID_DAYS = 365;

const OID = {
  ecdsaWithSha256: "1.2.840.10045.4.3.2",
  commonName: "2.5.4.3",
  subjectKeyIdentifier: "2.5.29.14",
  keyUsage: "2.5.29.15",
  subjectAltName: "2.5.29.17",
  basicConstraints: "2.5.29.19",
  authorityKeyIdentifier: "2.5.29.35",
  extendedKeyUsage: "2.5.29.37",
  serverAuth: "1.3.6.1.5.5.7.3.1",
  clientAuth: "1.3.6.1.5.5.7.3.2",
};

/** CA, certificate and key for a server at 127.0.0.1, ::1 and localhost. `now` is in Unix milliseconds. */
export function tlsMaterial(now: number): TlsMaterial {
  const ca = authority("embedded-cluster-ca", now);
  return { caPem: ca.caPem, ...ca.issue("kube-apiserver") };
}

export interface Authority {
  readonly caPem: string;
  /** A certificate of its own key, by default of a server; see `tlsMaterial` for how long. */
  issue(
    subject: string,
    options?: { usage?: "server" | "client"; from?: number; until?: number },
  ): { certPem: string; keyPem: string };
}

/** A CA that signs. `now` and the times of what it issues are in Unix milliseconds. */
export function authority(issuer: string, now: number): Authority {
  const ca = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const caKeyId = keyIdentifier(ca.publicKey);
  const common = { issuer, signer: ca.privateKey, from: now - DAY_MS, until: now + VALID_DAYS * DAY_MS };
  const caPem = certificate({
    ...common,
    subject: issuer,
    publicKey: ca.publicKey,
    extensions: [
      extension(OID.basicConstraints, sequence(boolean(true)), true),
      // keyCertSign and cRLSign: bits 5 and 6.
      extension(OID.keyUsage, tlv(0x03, Buffer.from([1, 0b0000_0110])), true),
      extension(OID.subjectKeyIdentifier, octets(caKeyId)),
    ],
  });
  const issue: Authority["issue"] = (subject, { usage = "server", ...validity } = {}) => {
    const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const certPem = certificate({
      ...common,
      ...validity,
      subject,
      publicKey,
      extensions: [
        extension(OID.basicConstraints, sequence(), true),
        // digitalSignature: bit 0.
        extension(OID.keyUsage, tlv(0x03, Buffer.from([7, 0b1000_0000])), true),
        extension(OID.extendedKeyUsage, sequence(oid(usage === "server" ? OID.serverAuth : OID.clientAuth))),
        extension(OID.authorityKeyIdentifier, sequence(tlv(0x80, caKeyId))),
        extension(
          OID.subjectAltName,
          sequence(
            tlv(0x82, Buffer.from("localhost")),
            tlv(0x87, Buffer.from([127, 0, 0, 1])),
            tlv(0x87, Buffer.from([...new Array<number>(15).fill(0), 1])),
          ),
        ),
      ],
    });
    return { certPem, keyPem: privateKey.export({ type: "pkcs8", format: "pem" }).toString() };
  };
  return { caPem, issue };
}

interface CertificateParts {
  readonly issuer: string;
  readonly subject: string;
  readonly publicKey: KeyObject;
  readonly signer: KeyObject;
  readonly extensions: readonly Buffer[];
  /** Unix milliseconds. */
  readonly from: number;
  readonly until: number;
}

/** One certificate in PEM (RFC 5280 section 4.1: TBSCertificate, algorithm, signature). */
function certificate({ issuer, subject, publicKey, signer, extensions, from, until }: CertificateParts): string {
  const algorithm = sequence(oid(OID.ecdsaWithSha256));
  const toBeSigned = sequence(
    tlv(0xa0, integer(Buffer.from([2]))), // version 3
    integer(Buffer.concat([Buffer.from([0x40]), randomBytes(15)])), // positive, without a leading zero
    algorithm,
    name(issuer),
    sequence(time(from), time(until)),
    name(subject),
    publicKey.export({ type: "spki", format: "der" }),
    tlv(0xa3, sequence(...extensions)),
  );
  const signature = sign("sha256", toBeSigned, signer);
  const der = sequence(toBeSigned, algorithm, tlv(0x03, Buffer.concat([Buffer.from([0]), signature])));
  const lines = der.toString("base64").match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`;
}

const keyIdentifier = (key: KeyObject): Buffer =>
  createHash("sha1")
    .update(key.export({ type: "spki", format: "der" }))
    .digest();

/** Tag, length, value. */
function tlv(tag: number, value: Buffer): Buffer {
  const { length } = value;
  const head =
    length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, Math.floor(length / 0x100), length % 0x100];
  return Buffer.concat([Buffer.from([tag, ...head]), value]);
}

const sequence = (...items: Buffer[]): Buffer => tlv(0x30, Buffer.concat(items));
const octets = (value: Buffer): Buffer => tlv(0x04, value);
const integer = (value: Buffer): Buffer => tlv(0x02, value);
const boolean = (value: boolean): Buffer => tlv(0x01, Buffer.from([value ? 0xff : 0]));
const name = (commonName: string): Buffer =>
  sequence(tlv(0x31, sequence(oid(OID.commonName), tlv(0x0c, Buffer.from(commonName)))));

const extension = (id: string, value: Buffer, critical = false): Buffer =>
  sequence(oid(id), ...(critical ? [boolean(true)] : []), octets(value));

/** UTCTime, `YYMMDDhhmmssZ`: right until 2049. */
const time = (at: number): Buffer =>
  tlv(0x17, Buffer.from(`${new Date(at).toISOString().slice(2, 19).replace(/\D/g, "")}Z`));

/** Object identifier: the first two arcs in one byte, the rest in base 128, high bit set on all but the last byte. */
function oid(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split(".").map(Number);
  const bytes = rest.flatMap((arc) => {
    const digits = [arc % 128];
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128)) digits.unshift(128 + (left % 128));
    return digits;
  });
  return tlv(0x06, Buffer.from([first * 40 + second, ...bytes]));
}
