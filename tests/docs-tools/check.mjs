// Judges /asyncapi.json by the official parser, and the patterns of both documents by the language that clients speak.
//
//     cd tests/docs-tools && npm ci && node check.mjs asyncapi.json openapi.json
//
// Prints what is wrong, and fails where anything is.

import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const ERROR_OR_WARNING = 1; // 0 and 1; what is above is advice
const [asyncapi, openapi] = process.argv.slice(2).map((path) => readFileSync(path, "utf8"));
const wrong = [];

// With every reference followed each operation holds its channel, which holds all messages with their schemas, and these
// hold one another: to judge that took four fifths of the time. So it is followed in two documents, one without what
// messages say and one without operations, where a schema's own parts are judged where they stand, once. Whether all that
// is referred to is there is judged of the whole.
const SCHEMAS = "#/components/schemas/";
const WHOLE = { rules: { "asyncapi-document-resolved": "off" } };

function note(diagnostics) {
  for (const { severity, path, message } of diagnostics) {
    console.log(`${severity} ${path.join(".")}: ${message}`);
    if (severity <= ERROR_OR_WARNING) wrong.push(message);
  }
}

function operations() {
  const part = JSON.parse(asyncapi);
  part.components.schemas = {};
  for (const message of Object.values(part.components.messages)) {
    for (const said of ["payload", "headers", "examples"]) delete message[said];
  }
  return JSON.stringify(part);
}

function messages() {
  const part = JSON.parse(asyncapi);
  part.operations = {};
  const cut = (key, value) => (typeof value?.$ref === "string" && value.$ref.startsWith(SCHEMAS) ? {} : value);
  part.components.schemas = JSON.parse(JSON.stringify(part.components.schemas), cut);
  return JSON.stringify(part);
}

const { document, diagnostics } = await new Parser({ ruleset: WHOLE }).parse(asyncapi);
note(diagnostics);
if (document === undefined) wrong.push("the parser made no document of it");
for (const part of [operations(), messages()]) note(await new Parser().validate(part));

function walk(value, path) {
  if (value === null || typeof value !== "object") return;
  for (const [key, inner] of Object.entries(value)) {
    if (key === "pattern" && typeof inner === "string") {
      try {
        new RegExp(inner, "u");
      } catch (error) {
        wrong.push(`${path}: ${error.message}`);
      }
    }
    walk(inner, `${path}.${key}`);
  }
}
walk(JSON.parse(asyncapi), "asyncapi");
walk(JSON.parse(openapi), "openapi");

for (const message of wrong) console.error(message);
console.log(`${document?.operations().all().length ?? 0} operations, ${document?.messages().all().length ?? 0} messages`);
process.exit(wrong.length ? 1 : 0);
