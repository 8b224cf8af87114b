// Checks the test vectors beside this file as a second implementation of ../protocol.md would, with nothing but Node's
// own modules (22.15 or newer). Prints one line and exits with 0, or names the first disagreement and exits with 1.
//
//     node docs/vectors/check.mjs [directory]

import { createHash, createPublicKey, verify } from "node:crypto";
import { readFileSync } from "node:fs";
import { zstdDecompressSync } from "node:zlib";

const directory = process.argv[2] ?? import.meta.dirname;
const read = (name) => JSON.parse(readFileSync(`${directory}/${name}.json`, "utf8")).vectors;
const bytes = (text) => Buffer.from(text, "base64");
const sha256 = (content) => createHash("sha256").update(content).digest("hex");

class Refused extends Error {}
const refuse = (kind) => {
  throw new Refused(kind);
};
const must = (holds) => holds || refuse("malformed");

// Keys -------------------------------------------------------------------------------------------------------------

const ED25519_SPKI = Buffer.from("302a300506032b6570032100", "hex");
const keys = Object.fromEntries(read("keys").map((key) => [key.name, key]));
for (const key of Object.values(keys)) {
  if (sha256(Buffer.from(key.public, "hex")).slice(0, 16) !== key.key_id) fail("keys", key.name, "another key id");
}

function checkSignature(trusted, purpose, message, keyId, signature) {
  if (keyId !== keys[trusted].key_id) refuse("unknown-key");
  const der = Buffer.concat([ED25519_SPKI, Buffer.from(keys[trusted].public, "hex")]);
  const key = createPublicKey({ key: der, format: "der", type: "spki" });
  const content = Buffer.concat([Buffer.from(`airlock/1 ${purpose}\n`), message]);
  if (signature.length !== 64 || !verify(null, content, key, signature)) refuse("bad-signature");
}

// JSON: integers stay exact, and a number written with a point or an exponent is none --------------------------------

function parse(content) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(content);
    const exact = (_, value, context) =>
      typeof value === "number" && /^-?\d+$/.test(context.source) ? BigInt(context.source) : value;
    const parsed = JSON.parse(text, exact);
    must(parsed !== null && typeof parsed === "object" && !Array.isArray(parsed));
    return parsed;
  } catch {
    return refuse("malformed");
  }
}

const within = (low, high) => (value) => typeof value === "bigint" && value >= low && value <= high;
const matching = (pattern) => (value) => typeof value === "string" && pattern.test(value);
const MAX = 2n ** 63n - 1n;
const MEBIBYTE = 1024n * 1024n;
const COUNTER = within(0n, MAX);
const HASH = matching(/^[0-9a-f]{64}$/);
const TIME = matching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)$/);
const COMMON = {
  spec: within(1n, 1n),
  link: matching(/^.{0,63}$/su),
  stream: matching(/^(settings|health|(requests|results)(\.[1-7])?)$/),
  epoch: within(1n, 2n ** 31n - 1n),
  key_id: matching(/^[0-9a-f]{16}$/),
};
const MANIFEST = {
  ...COMMON, sequence: within(1n, MAX), first_record: COUNTER, last_record: COUNTER, count: within(0n, 5000n),
  part: within(1n, 10000n), parts: within(1n, 10000n), raw_bytes: within(0n, 8n * MEBIBYTE),
  payload_bytes: within(0n, 8n * MEBIBYTE + 65536n), payload_sha256: HASH, previous: HASH, sealed_at: TIME,
};
const NOTES = {
  receipt: { ...COMMON, head: HASH, issued_at: TIME, received: COUNTER, applied: COUNTER, quarantined: COUNTER },
  heartbeat: { ...COMMON, head: HASH, issued_at: TIME, sequence: COUNTER },
};

function checkFields(fields, shape) {
  must(Object.keys(fields).every((name) => Object.hasOwn(shape, name)));
  for (const [name, holds] of Object.entries(shape)) must(Object.hasOwn(fields, name) && holds(fields[name]));
}

// Messages -----------------------------------------------------------------------------------------------------------

function openManifest(content, signature) {
  must(content.length <= 4096);
  const fields = parse(content);
  must(typeof fields.spec === "bigint" && typeof fields.key_id === "string");
  checkSignature("response", "manifest", content, fields.key_id, signature);
  if (fields.spec !== 1n) refuse("unsupported-version");
  checkFields(fields, MANIFEST);
  must(fields.last_record - fields.first_record + 1n === fields.count && fields.part <= fields.parts);
  return fields;
}

function base64(line) {
  const text = line.toString("latin1");
  must(/^[A-Za-z0-9+/]*={0,2}$/.test(text) && text.length % 4 === 0);
  return Buffer.from(text, "base64");
}

function openBatch(wire) {
  const first = wire.indexOf(10);
  const second = wire.indexOf(10, first + 1);
  must(first >= 0 && second >= 0);
  const [content, payload] = [wire.subarray(0, first), wire.subarray(second + 1)];
  const manifest = openManifest(content, base64(wire.subarray(first + 1, second)));
  must(BigInt(payload.length) === manifest.payload_bytes && sha256(payload) === manifest.payload_sha256);
  const raw = inflate(payload, Number(manifest.raw_bytes));
  must(raw.length === 0 || raw.at(-1) === 10);
  const records = raw.toString("utf8").split("\n").slice(0, -1);
  must(BigInt(records.length) === manifest.count);
  return { manifest, records, hash: sha256(content) };
}

function inflate(payload, size) {
  try {
    must(payload.readUInt32LE(0) === 0xfd2fb528);
    const raw = zstdDecompressSync(payload, { maxOutputLength: Math.max(size, 1) });
    must(raw.length === size && frameLength(payload) === payload.length);
    return raw;
  } catch {
    return refuse("malformed");
  }
}

// RFC 8878, 3.1.1: the length of the one frame that a payload is. Node's own function goes on to the next frame.
function frameLength(frame) {
  const descriptor = frame[4];
  const single = (descriptor >> 5) & 1;
  const sizeOfSize = [single, 2, 4, 8][descriptor >> 6];
  let place = 5 + (single ? 0 : 1) + [0, 1, 2, 4][descriptor & 3] + sizeOfSize;
  for (let last = 0; !last; ) {
    const header = frame.readUIntLE(place, 3);
    last = header & 1;
    place += 3 + (((header >> 1) & 3) === 1 ? 1 : header >> 3);
  }
  return place + ((descriptor >> 2) & 1 ? 4 : 0);
}

function openNote(purpose, trusted, wire) {
  const end = wire.indexOf(10);
  must(wire.length <= 4096 && end >= 0);
  const [content, signature] = [wire.subarray(0, end), base64(wire.subarray(end + 1))];
  const fields = parse(content);
  const { spec, ...others } = NOTES[purpose];
  must(typeof fields.spec === "bigint");
  checkFields(fields, { spec: () => true, ...others });
  checkSignature(trusted, purpose, content, fields.key_id, signature);
  if (!spec(fields.spec)) refuse("unsupported-version");
}

const HEADER = /^key=([0-9a-f]{16}); time=([0-9]{1,12}); nonce=([0-9a-f]{32}); value=([A-Za-z0-9+/=]{88})$/;

function checkHeader(trusted, purpose, vector, parts) {
  const found = HEADER.exec(vector.header) ?? refuse("bad-signature");
  const [, keyId, time, nonce, value] = found;
  const text = [vector.link, ...parts, time, nonce, sha256(bytes(vector.body))].join("\n");
  checkSignature(trusted, purpose, Buffer.from(text), keyId, Buffer.from(value, "base64"));
  if (Math.abs(vector.at - Number(time)) > vector.clock_skew) refuse("clock-skew");
}

// The chain: what a receiver makes of each batch, from nothing on -----------------------------------------------------

const at = { sequence: 0n, record: 0n, hash: "0".repeat(64), known: {} };

function receive(wire) {
  const { manifest, hash } = openBatch(wire);
  if (manifest.sequence <= at.sequence) return at.known[manifest.sequence] === hash ? "repeated" : "fork";
  if (manifest.sequence > at.sequence + 1n) return "gap";
  if (manifest.previous !== at.hash || manifest.first_record !== at.record + 1n) return "fork";
  Object.assign(at, { sequence: manifest.sequence, record: manifest.last_record, hash });
  at.known[manifest.sequence] = hash;
  return "stored";
}

// All of them ----------------------------------------------------------------------------------------------------------

const CHECKS = {
  manifests(vector) {
    openManifest(bytes(vector.manifest), bytes(vector.signature));
    return sha256(bytes(vector.manifest)) === vector.hash || "another hash";
  },
  batches(vector) {
    return JSON.stringify(openBatch(bytes(vector.wire)).records) === JSON.stringify(vector.records) || "other records";
  },
  chain(vector) {
    const became = receive(bytes(vector.wire));
    if (became !== vector.becomes) return `it is a ${became}`;
    if (vector.expected && BigInt(vector.expected) !== at.sequence + 1n) return `expected is ${at.sequence + 1n}`;
    return !vector.head || (vector.head === at.hash && BigInt(vector.received) === at.sequence) || "another head";
  },
  receipts: (vector) => openNote("receipt", "request", bytes(vector.wire)) ?? true,
  heartbeats: (vector) => openNote("heartbeat", "response", bytes(vector.wire)) ?? true,
  requests: (vector) => checkHeader("response", "request", vector, [vector.method, vector.target]) ?? true,
  responses: (vector) => checkHeader("request", "response", vector, [vector.request_header, vector.status]) ?? true,
};

function fail(file, name, reason) {
  console.error(`${file}.json, "${name}": ${reason}`);
  process.exit(1);
}

let count = 0;
for (const [file, check] of Object.entries(CHECKS)) {
  for (const vector of read(file)) {
    const expected = vector.error ?? "accepted";
    let found, agreed;
    try {
      agreed = check(vector);
      found = "accepted";
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      found = error.message;
    }
    if (found !== expected) fail(file, vector.name, `should be ${expected}, is ${found}`);
    if (found === "accepted" && agreed !== true) fail(file, vector.name, agreed);
    count += 1;
  }
}
console.log(`${count} vectors agree`);
