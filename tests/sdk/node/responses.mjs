// What the official OpenAI SDK for Node must be able to do with Responses.

import assert from "node:assert/strict";
import OpenAI from "openai";
import { standardResponsesFunction, standardTextFormat } from "openai/helpers/standard-schema";
import { ages } from "./schema.mjs";

const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: process.env.API_KEY, maxRetries: 0 });
const user = (content) => [{ role: "user", content }];

const weather = {
  type: "function",
  name: "weather",
  parameters: { type: "object", properties: { town: { type: "string" } }, required: ["town"] },
  strict: false,
};
const pixel =
  "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

export const checks = {
  async "a response comes whole and as a stream that is put together"() {
    const asked = { model: "truth-echo", input: "one two three", store: false };
    const whole = await client.responses.create(asked);
    assert.deepEqual([whole.output_text, whole.status, whole.usage.total_tokens], ["one two three", "completed", 6]);
    const stream = client.responses.stream(asked);
    const words = [];
    stream.on("response.output_text.delta", (event) => words.push(event.delta));
    const final = await stream.finalResponse();
    assert.deepEqual([words.join(""), final.output_text], ["one two three", "one two three"]);
  },

  async "a function of a response is called and its result is answered, over three turns"() {
    const asked = { model: "truth-tools", tools: [weather], store: false, include: ["reasoning.encrypted_content"] };
    const input = user("How is Rome?");
    for (const town of ["Rome", "Ulm"]) {
      const stream = client.responses.stream({ ...asked, input });
      const called = await stream.finalResponse();
      const [call] = called.output.filter((item) => item.type === "function_call");
      assert.equal(typeof JSON.parse(call.arguments).town, "string");
      input.push(...called.output, { type: "function_call_output", call_id: call.call_id, output: `sunny in ${town}` });
      const answered = await client.responses.create({ ...asked, input });
      assert.match(answered.output_text, new RegExp(`sunny in ${town}`));
      input.push(...answered.output, ...user("And how is Ulm?"));
    }
  },

  async "the parse helpers make an object of a response and of a call, whole and as a stream"() {
    const format = standardTextFormat(ages, "ages");
    const asked = { model: "truth-json", input: "Who?", text: { format }, store: false };
    const whole = await client.responses.parse(asked);
    assert.deepEqual(Object.keys(whole.output_parsed), ["name", "age"]);
    const streamed = await client.responses.stream(asked).finalResponse();
    assert.deepEqual(streamed.output_parsed, whole.output_parsed);
    const tools = [standardResponsesFunction({ name: "greet", parameters: ages })];
    const called = await client.responses.parse({ model: "truth-tools", input: "Hello", tools, store: false });
    const [call] = called.output.filter((item) => item.type === "function_call");
    assert.equal(typeof call.parsed_arguments.name, "string");
  },

  async "an image reaches a model through a response"() {
    const content = [{ type: "input_image", image_url: pixel, detail: "auto" }];
    const seen = await client.responses.create({ model: "truth-vision", input: user(content), store: false });
    assert.equal(seen.output_text, "1 image: image/png, 70 bytes");
  },

  async "a response that breaks ends as failed"() {
    const asked = { model: "truth-fault-cut-3", input: "one two three four five", stream: true, store: false };
    let last;
    for await (const event of await client.responses.create(asked)) last = event;
    assert.deepEqual([last.type, last.response.error.code], ["response.failed", "server_error"]);
  },

  async "a chain of responses, whole and streamed, carries a tool's call to its result"() {
    const asked = { model: "truth-tools", tools: [weather] };
    const called = await client.responses.stream({ ...asked, input: "How is Rome?" }).finalResponse();
    const [call] = called.output.filter((item) => item.type === "function_call");
    const told = [{ type: "function_call_output", call_id: call.call_id, output: "sunny" }];
    const next = { ...asked, input: told, previous_response_id: called.id };
    const answered = await client.responses.create(next);
    assert.match(answered.output_text, /sunny/);
    const other = await client.responses.stream(next).finalResponse();
    assert.deepEqual([other.output_text, other.previous_response_id], [answered.output_text, called.id]);
    const third = await client.responses.create({ ...asked, tools: [], input: "Thanks", previous_response_id: other.id });
    const items = [];
    for await (const item of client.responses.inputItems.list(third.id, { order: "asc" })) items.push(item.type);
    assert.deepEqual(items, ["message", "function_call", "function_call_output", "message", "message"]);
  },

  async "its own errors are raised, and its retries get over an upstream that fails"() {
    const asked = { input: "Hello", store: false };
    await assert.rejects(client.responses.create({ ...asked, model: "nobody" }), OpenAI.NotFoundError);
    await assert.rejects(client.responses.create({ ...asked, model: "truth-echo", temperature: 3 }), OpenAI.BadRequestError);
    const patient = client.withOptions({ maxRetries: 2 });
    const answer = await patient.responses.create({ ...asked, model: "truth-fault-flaky-1", user: "of responses" });
    assert.equal(answer.output_text, "Hello");
  },

  async "the next response goes on from a stored one, which can be deleted"() {
    const first = await client.responses.create({ model: "truth-echo", input: "one two" });
    const asked = { model: "truth-echo", input: "three", previous_response_id: first.id };
    const second = await client.responses.stream(asked).finalResponse();
    assert.deepEqual([second.previous_response_id, second.output_text], [first.id, "three"]);
    assert.equal(second.usage.input_tokens, 5);
    assert.equal((await client.responses.retrieve(second.id)).output_text, "three");
    const items = [];
    for await (const item of client.responses.inputItems.list(second.id)) items.push(item.type);
    assert.deepEqual(items, ["message", "message", "message"]);
    await client.responses.delete(first.id);
    await assert.rejects(client.responses.create(asked), OpenAI.BadRequestError);
    await assert.rejects(client.responses.retrieve(first.id), OpenAI.NotFoundError);
  },

  async "a conversation is kept, listed and gone on from"() {
    const made = await client.conversations.create({ items: [{ role: "user", content: "one two" }], metadata: { a: "b" } });
    const asked = { model: "truth-echo", conversation: made.id };
    const whole = await client.responses.create({ ...asked, input: "three" });
    const streamed = await client.responses.stream({ ...asked, conversation: { id: made.id }, input: "four" }).finalResponse();
    assert.deepEqual([whole.output_text, whole.conversation, streamed.conversation], ["three", { id: made.id }, { id: made.id }]);
    assert.equal(streamed.usage.input_tokens, 5);
    const items = [];
    for await (const item of client.conversations.items.list(made.id, { order: "asc", limit: 2 })) items.push(item);
    assert.deepEqual(items.map((item) => item.content[0].text), ["one two", "three", "three", "four", "four"]);
    const left = await client.conversations.items.delete(items[0].id, { conversation_id: made.id });
    assert.deepEqual(left, await client.conversations.retrieve(made.id));
    assert.deepEqual((await client.conversations.update(made.id, { metadata: { c: "d" } })).metadata, { c: "d" });
    assert.equal((await client.conversations.delete(made.id)).deleted, true);
    await assert.rejects(client.responses.create({ ...asked, input: "five" }), OpenAI.NotFoundError);
  },
};
