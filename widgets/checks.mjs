// Writes valibot's checks in TypeScript from the JSON schema of the wire. It supports only the keywords that msgspec
// writes; any other keyword is an error.

const COMMENTS = new Set(["title", "description", "default", "discriminator"]);

/** The text of src/wire/protocol.check.gen.ts. */
export function checks(schema) {
  const definitions = schema.$defs;
  const written = new Map();
  const write = (name) => {
    if (written.has(name)) return;
    const text = expression(definitions[name], (other) => (write(other), other));
    written.set(name, `export const ${name} = ${text};\n`);
  };
  for (const name of Object.keys(definitions)) write(name);
  return `// Generated from py_backend/residscope/wire/protocol.py by \`npm run protocol\`. Do not edit.
// Values that do not match the schema are refused. Fields that the schema does not name are left out.
import * as v from "valibot";
import type { Shown as Selected } from "./protocol.gen";

${[...written.values()].join("")}
/** The check of each kind of request, and of its reply. */
export const REQUESTS = ${byKind(definitions.Question.properties.ask)};
export const REPLIES = ${byKind(definitions.Answer.properties.reply.anyOf.find(({ type }) => type !== "null"))};

/**
 * For each kind of request, the values of the fields that it leaves out. A field that is null can always be left out.
 */
export const DEFAULTS: Record<string, Record<string, unknown>> = ${JSON.stringify(defaults(definitions), null, 2)};

/** The selection before the user has selected anything. */
export const UNSELECTED: Required<Omit<Selected, "target">> = ${JSON.stringify(unselected(definitions), null, 2)};
`;
}

/** The kinds of a union, with the names of their checks. */
function byKind(union) {
  const lines = Object.entries(union.discriminator.mapping).map(
    ([kind, ref]) => `  ${JSON.stringify(kind)}: ${ref.split("/").at(-1)},\n`,
  );
  return `{\n${lines.join("")}} as const`;
}

function unselected({ Shown: { properties } }) {
  const fields = Object.entries(properties).filter(([, field]) => field.default !== undefined);
  return Object.fromEntries(fields.map(([name, field]) => [name, field.default]));
}

function defaults(definitions) {
  const requests = definitions.Question.properties.ask.discriminator.mapping;
  return Object.fromEntries(
    Object.entries(requests).map(([kind, ref]) => {
      const fields = Object.entries(definitions[ref.split("/").at(-1)].properties);
      return [
        kind,
        Object.fromEntries(
          fields.flatMap(([name, field]) =>
            name !== "kind" && field.default !== undefined && field.default !== null ? [[name, field.default]] : [],
          ),
        ),
      ];
    }),
  );
}

function expression(schema, named) {
  const { $ref, anyOf, enum: values, type, properties, required = [], items, ...rest } = schema;
  const bounds = [];
  for (const [word, value] of Object.entries(rest)) {
    if (COMMENTS.has(word)) continue;
    const bound = {
      minimum: "minValue",
      maximum: "maxValue",
      minItems: "minLength",
      maxItems: "maxLength",
      minLength: "minLength",
      maxLength: "maxLength",
    }[word];
    if (!bound) throw new Error(`checks.mjs does not support the keyword "${word}" of a JSON schema.`);
    bounds.push(`v.${bound}(${JSON.stringify(value)})`);
  }
  const bounded = (check, ...more) =>
    more.length + bounds.length > 0 ? `v.pipe(${[check, ...more, ...bounds].join(", ")})` : check;
  if ($ref) return named($ref.split("/").at(-1));
  if (anyOf) {
    const others = anyOf.filter(({ type }) => type !== "null").map((one) => expression(one, named));
    const one =
      others.length === 1
        ? others[0]
        : schema.discriminator
          ? `v.variant("${schema.discriminator.propertyName}", [${others.join(", ")}])`
          : `v.union([${others.join(", ")}])`;
    return others.length < anyOf.length ? `v.nullable(${one})` : one;
  }
  if (values) return `v.picklist(${JSON.stringify(values)})`;
  switch (type) {
    case "string":
      return bounded("v.string()");
    case "boolean":
      return "v.boolean()";
    case "number":
      return bounded("v.number()", "v.finite()");
    case "integer":
      return bounded("v.number()", "v.safeInteger()");
    case "array":
      return bounded(`v.array(${expression(items, named)})`);
    case "object": {
      const fields = Object.entries(properties ?? {}).map(([name, of]) => {
        const check = expression(of, named);
        return `  ${name}: ${required.includes(name) ? check : `v.exactOptional(${check})`},\n`;
      });
      return `v.object({\n${fields.join("")}})`;
    }
    default:
      throw new Error(`checks.mjs does not support the type "${type}" of a JSON schema.`);
  }
}
