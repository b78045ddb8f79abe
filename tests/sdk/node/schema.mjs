// A Standard Schema, as libraries of schemas make them, without one.

const schema = {
  type: "object",
  properties: { name: { type: "string" }, age: { type: "integer" } },
  required: ["name", "age"],
  additionalProperties: false,
};
const isAges = (value) => typeof value?.name === "string" && Number.isInteger(value.age);

export const ages = {
  "~standard": {
    version: 1,
    vendor: "crun-sdk-test",
    validate: (value) => (isAges(value) ? { value } : { issues: [{ message: "neither name nor age" }] }),
    jsonSchema: { input: () => schema, output: () => schema },
  },
};
