// Reads a JSON array of Kubernetes objects from standard input and prints the violations of their schemas, one per line:
// a wrong type, a missing key, a value that is not allowed, and a key that is not in the schema. The compiled schema never
// reads an unknown key, which a proxy detects.
import { createRequire } from "node:module";
import { text } from "node:stream/consumers";

const require = createRequire(`${process.env.SPICED_CLIENT_KUBERNETES}/`);
const PACKAGES = {
  "cert-manager.io": "@kubernetes-models/cert-manager",
  "monitoring.coreos.com": "@kubernetes-models/prometheus-operator",
};

function watched(value, path, unseen) {
  if (value === null || typeof value !== "object") return value;
  const copy = Array.isArray(value) ? [] : {};
  for (const [key, child] of Object.entries(value)) {
    unseen.add(`${path}/${key}`);
    copy[key] = watched(child, `${path}/${key}`, unseen);
  }
  return new Proxy(copy, {
    get(target, key) {
      unseen.delete(`${path}/${String(key)}`);
      return target[key];
    },
  });
}

for (const object of JSON.parse(await text(process.stdin))) {
  const { apiVersion, kind } = object;
  const name = `${kind} ${object.metadata?.name}`;
  try {
    const models = require(`${PACKAGES[apiVersion.split("/")[0]] ?? "kubernetes-models"}/${apiVersion}`);
    if (!models[kind]) throw new Error(`there is no such kind in ${apiVersion}`);
    const unseen = new Set();
    models[kind].prototype.validate.call(watched(object, "", unseen));
    for (const path of unseen) console.log(`${name}: no schema knows ${path}`);
  } catch (error) {
    console.log(`${name}: ${error.message}`);
  }
}
