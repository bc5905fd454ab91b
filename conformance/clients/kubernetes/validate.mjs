// Reads a JSON array of Kubernetes objects from standard input and prints what their schemas have against each, a line a complaint:
// a wrong type, a key that is missing, a word that is none of the allowed, and a key that no schema knows. The last is one that the
// compiled schema never looks at, and a proxy sees that.
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
