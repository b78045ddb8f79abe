// What the official Anthropic SDK for Node must be able to do.

import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import { betaTool } from "@anthropic-ai/sdk/helpers/beta/json-schema";
import { jsonSchemaOutputFormat } from "@anthropic-ai/sdk/helpers/json-schema";

const baseURL = process.env.BASE_URL.replace(/\/v1$/, "");
const apiKey = process.env.API_KEY;
const client = new Anthropic({ baseURL, apiKey, maxRetries: 0 });
const user = (content) => [{ role: "user", content }];
const ask = (fields) => ({ model: "truth-echo", max_tokens: 50, ...fields });

const pixel =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const weather = {
  name: "weather",
  input_schema: { type: "object", properties: { town: { type: "string" } }, required: ["town"] },
};

export const checks = {
  async "models are listed in Anthropic's shape"() {
    const listed = [];
    for await (const model of client.models.list({ limit: 5 })) listed.push(model);
    assert.ok(listed.some((model) => model.id === "truth-echo"));
    assert.ok(listed.every((model) => model.type === "model" && model.display_name && !isNaN(Date.parse(model.created_at))));
  },

  async "an answer has text and true usage"() {
    const answer = await client.messages.create(ask({ messages: user("Hello, CRUN!") }));
    assert.deepEqual([answer.type, answer.role, answer.model], ["message", "assistant", "truth-echo"]);
    assert.equal(answer.content[0].text, "Hello, CRUN!");
    assert.deepEqual([answer.usage.input_tokens, answer.usage.output_tokens], [2, 2]);
    assert.equal(answer.stop_reason, "end_turn");
  },

  async "the stream helper accumulates the answer"() {
    const stream = client.messages.stream(ask({ messages: user("one two three") }));
    let text = "";
    stream.on("text", (delta) => (text += delta));
    const final = await stream.finalMessage();
    assert.equal(text, "one two three");
    assert.equal(final.content[0].text, text);
    assert.equal(final.usage.output_tokens, 3);
  },

  async "a tool is called and its result is answered"() {
    const question = ask({ model: "truth-tools", tools: [weather] });
    const first = await client.messages.create({ ...question, messages: user("How is Rome?") });
    const call = first.content.find((block) => block.type === "tool_use");
    assert.equal(first.stop_reason, "tool_use");
    assert.equal(typeof call.input.town, "string");
    const told = { type: "tool_result", tool_use_id: call.id, content: "22 degrees" };
    const messages = [...user("How is Rome?"), { role: "assistant", content: first.content }, ...user([told])];
    const second = await client.messages.create({ ...question, messages });
    assert.match(second.content[0].text, /22 degrees/);
  },

  async "an unknown model, a wrong key and a bad field have their errors"() {
    const hello = { messages: user("Hello") };
    await assert.rejects(client.messages.create(ask({ ...hello, model: "no-such-model" })), Anthropic.NotFoundError);
    await assert.rejects(client.messages.create(ask({ ...hello, temperature: 3 })), Anthropic.BadRequestError);
    const stranger = new Anthropic({ baseURL, apiKey: "nonsense", maxRetries: 0 });
    await assert.rejects(stranger.messages.create(ask(hello)), (error) => {
      assert.ok(error instanceof Anthropic.AuthenticationError);
      assert.equal(error.error.error.type, "authentication_error");
      assert.match(error.requestID, /^req_/);
      return true;
    });
  },

  async "the tool runner goes on until the model has answered, whole and as a stream"() {
    const towns = [];
    const run = ({ town }) => (towns.push(town), "22 degrees");
    const tool = betaTool({ name: "weather", description: "Of a town", inputSchema: weather.input_schema, run });
    const question = ask({ model: "truth-tools", tools: [tool], messages: user("How is Rome?") });
    const final = await client.beta.messages.toolRunner(question);
    assert.match(final.content[0].text, /22 degrees/);
    const reasons = [];
    for await (const stream of client.beta.messages.toolRunner({ ...question, stream: true }))
      reasons.push((await stream.finalMessage()).stop_reason);
    assert.deepEqual(reasons, ["tool_use", "end_turn"]);
    assert.deepEqual(towns.map((town) => typeof town), ["string", "string"]);
  },

  async "an answer is parsed by its schema, whole and as a stream"() {
    const format = jsonSchemaOutputFormat({ type: "object", properties: { name: { type: "string" } }, required: ["name"] });
    const asked = ask({ model: "truth-json", messages: user("Who?"), output_config: { format } });
    const parsed = await client.messages.parse(asked);
    assert.equal(typeof parsed.parsed_output.name, "string");
    assert.deepEqual((await client.messages.stream(asked).finalMessage()).parsed_output, parsed.parsed_output);
  },

  async "an image is seen and tokens are counted"() {
    const image = { type: "image", source: { type: "base64", media_type: "image/png", data: pixel } };
    const seen = await client.messages.create(ask({ model: "truth-vision", messages: user([image]) }));
    assert.equal(seen.content[0].text, "1 image: image/png, 70 bytes");
    const count = await client.messages.countTokens({ model: "truth-echo", messages: user("one two three") });
    assert.ok(count.input_tokens > 2);
  },

  async "a bearer token, betas and headers of agents do not disturb"() {
    const bearer = new Anthropic({ baseURL, apiKey: null, authToken: apiKey, maxRetries: 0, defaultHeaders: { "x-app": "cli" } });
    const asked = { ...ask({ messages: user("Hello") }), betas: ["claude-code-20250219"] };
    const { data, response, request_id } = await bearer.beta.messages.create(asked).withResponse();
    assert.equal(data.content[0].text, "Hello");
    assert.match(request_id, /^req_/);
    assert.equal(response.headers.get("x-crun-dropped-params"), "anthropic-beta.claude-code-20250219");
  },

  async "a failure that may pass is tried again, and one that may not is not"() {
    let sent = 0;
    const counting = (url, init) => (sent++, fetch(url, init));
    const patient = new Anthropic({ baseURL, apiKey, maxRetries: 2, fetch: counting });
    const answer = await patient.messages.create(ask({ model: "truth-fault-flaky-1", messages: user("Hello") }));
    assert.deepEqual([answer.stop_reason, sent], ["end_turn", 2]);
    sent = 0;
    const refused = patient.messages.create(ask({ model: "truth-fault-401", messages: user("Hello") }));
    await assert.rejects(refused, Anthropic.InternalServerError);
    assert.equal(sent, 1);
  },

  async "a stream that breaks raises"() {
    const asked = ask({ model: "truth-fault-cut-3", messages: user("one two three four five") });
    await assert.rejects(client.messages.stream(asked).finalMessage(), Anthropic.APIError);
  },
};
