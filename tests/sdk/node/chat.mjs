// What the official OpenAI SDK for Node must be able to do with Chat Completions, and with all but Responses.

import assert from "node:assert/strict";
import OpenAI from "openai";
import { standardResponseFormat } from "openai/helpers/standard-schema";
import { ages } from "./schema.mjs";

const baseURL = process.env.BASE_URL;
const apiKey = process.env.API_KEY;
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const user = (content) => [{ role: "user", content }];
const create = (fields) => client.chat.completions.create({ model: "truth-echo", ...fields });

const weather = {
  type: "function",
  function: {
    name: "weather",
    parameters: { type: "object", properties: { town: { type: "string" } }, required: ["town"] },
  },
};
const pixel =
  "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

async function textOf(stream) {
  let text = "";
  let last;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
    last = chunk;
  }
  return { text, last };
}

export const checks = {
  async "an answer has text and true usage"() {
    const answer = await create({ messages: user("Hello, CRUN!") });
    assert.equal(answer.choices[0].message.content, "Hello, CRUN!");
    assert.equal(answer.model, "truth-echo");
    assert.deepEqual([answer.usage.prompt_tokens, answer.usage.completion_tokens], [2, 2]);
  },

  async "a stream comes word by word and ends with its usage"() {
    const { text, last } = await textOf(
      await create({ messages: user("one two three"), stream: true, stream_options: { include_usage: true } }),
    );
    assert.equal(text, "one two three");
    assert.deepEqual(last.choices, []);
    assert.equal(last.usage.total_tokens, 6);
  },

  async "the stream helper accumulates the answer"() {
    const final = await client.chat.completions
      .stream({ model: "truth-echo", messages: user("one two three") })
      .finalChatCompletion();
    assert.equal(final.choices[0].message.content, "one two three");
  },

  async "20 streams at once each get their own words"() {
    const words = (number) => Array.from({ length: 30 }, (_, word) => `${number}-${word}`).join(" ");
    const one = async (number) =>
      (await textOf(await create({ messages: user(words(number)), stream: true, sandbox: { chunk_delay_ms: 10 } })))
        .text;
    const numbers = Array.from({ length: 20 }, (_, number) => number);
    assert.deepEqual(await Promise.all(numbers.map(one)), numbers.map(words));
  },

  async "a tool is called and its result is answered"() {
    const question = { model: "truth-tools", tools: [weather] };
    const first = await create({ ...question, messages: user("How is Rome?") });
    const [call] = first.choices[0].message.tool_calls;
    assert.equal(call.function.name, "weather");
    assert.equal(typeof JSON.parse(call.function.arguments).town, "string");
    const told = { role: "tool", tool_call_id: call.id, content: "22 degrees" };
    const second = await create({ ...question, messages: [...user("How is Rome?"), first.choices[0].message, told] });
    assert.equal(second.choices[0].message.content, 'The tool answered: "22 degrees"');
  },

  async "an answer follows the JSON schema"() {
    const schema = { type: "object", properties: { age: { type: "integer" } }, required: ["age"] };
    const answer = await create({
      model: "truth-json",
      messages: user("How old?"),
      response_format: { type: "json_schema", json_schema: { name: "age", schema } },
    });
    assert.ok(Number.isInteger(JSON.parse(answer.choices[0].message.content).age));
  },

  async "the parse helpers make an object of an answer, whole and as a stream"() {
    const asked = { model: "truth-json", messages: user("Who?"), response_format: standardResponseFormat(ages, "ages") };
    const whole = await client.chat.completions.parse(asked);
    assert.deepEqual(Object.keys(whole.choices[0].message.parsed), ["name", "age"]);
    const streamed = await client.chat.completions.stream(asked).finalChatCompletion();
    assert.deepEqual(streamed.choices[0].message.parsed, whole.choices[0].message.parsed);
  },

  async "the tool runner goes on until the model has answered, whole and as a stream"() {
    const towns = [];
    const run = { ...weather.function, parse: JSON.parse, function: ({ town }) => (towns.push(town), "22 degrees") };
    for (const stream of [false, true]) {
      const asked = { model: "truth-tools", messages: user("How is Rome?"), tools: [{ type: "function", function: run }] };
      const runner = client.chat.completions.runTools({ ...asked, stream });
      assert.equal(await runner.finalContent(), 'The tool answered: "22 degrees"');
      assert.deepEqual(runner.messages.map((message) => message.role), ["user", "assistant", "tool", "assistant"]);
    }
    assert.deepEqual(towns.map((town) => typeof town), ["string", "string"]);
  },

  async "an image reaches a model that sees"() {
    const parts = [{ type: "text", text: "What is this?" }, { type: "image_url", image_url: { url: pixel } }];
    const answer = await create({ model: "truth-vision", messages: user(parts) });
    assert.equal(answer.choices[0].message.content, "1 image: image/png, 70 bytes");
  },

  async "an unknown model is not found"() {
    await assert.rejects(create({ model: "no-such-model", messages: user("Hello") }), (error) => {
      assert.ok(error instanceof OpenAI.NotFoundError);
      assert.equal(error.code, "model_not_found");
      assert.match(error.requestID, /^req_/);
      return true;
    });
  },

  async "a wrong key is an authentication error"() {
    const stranger = new OpenAI({ baseURL, apiKey: "nonsense", maxRetries: 0 });
    const asked = stranger.chat.completions.create({ model: "truth-echo", messages: user("Hello") });
    await assert.rejects(asked, (error) => {
      assert.ok(error instanceof OpenAI.AuthenticationError);
      assert.equal(error.code, "invalid_api_key");
      return true;
    });
  },

  async "the key may come in X-API-KEY alone"() {
    const sent = [];
    const defaultHeaders = { Authorization: null, "X-API-KEY": apiKey };
    const spying = (url, init) => {
      sent.push(new Headers(init.headers).get("authorization"));
      return fetch(url, init);
    };
    const direct = new OpenAI({ baseURL, apiKey: "not sent", defaultHeaders, fetch: spying, maxRetries: 0 });
    const answer = await direct.chat.completions.create({ model: "truth-echo", messages: user("Hello") });
    assert.equal(answer.choices[0].message.content, "Hello");
    assert.deepEqual(sent, [null]);
  },

  async "a bad field is a bad request that names it"() {
    await assert.rejects(create({ messages: user("Hello"), temperature: 3 }), (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.equal(error.param, "temperature");
      return true;
    });
  },

  async "models are listed and retrieved"() {
    const listed = [];
    for await (const model of client.models.list()) listed.push(model.id);
    assert.ok(listed.includes("truth-echo"));
    assert.equal((await client.models.retrieve("truth-echo")).owned_by, "Truth");
  },

  async "a stream that breaks raises and never ends cleanly"() {
    const stream = await create({ model: "truth-fault-cut-3", messages: user("one two three four five"), stream: true });
    await assert.rejects(textOf(stream), OpenAI.APIError);
  },

  async "a tool call is streamed in pieces"() {
    const question = { model: "truth-tools", tools: [weather], messages: user("How is Rome?") };
    const final = await client.chat.completions.stream(question).finalChatCompletion();
    const [call] = final.choices[0].message.tool_calls;
    assert.equal(call.function.name, "weather");
    assert.equal(typeof JSON.parse(call.function.arguments).town, "string");
    assert.equal(final.choices[0].finish_reason, "tool_calls");
  },

  async "embeddings are vectors in the order of their texts"() {
    const asked = { model: "sandbox-embedding", input: ["one two", "three"], dimensions: 16 };
    const packed = await client.embeddings.create(asked);
    const plain = await client.embeddings.create({ ...asked, encoding_format: "float" });
    assert.deepEqual(packed.data.map((each) => each.index), [0, 1]);
    assert.equal(packed.data[0].embedding.length, 16);
    plain.data.forEach((each, index) =>
      each.embedding.forEach((number, at) => assert.ok(Math.abs(number - packed.data[index].embedding[at]) < 1e-6)),
    );
    assert.equal(plain.usage.prompt_tokens, 3);
  },

  async "a text completion comes whole and as a stream"() {
    const asked = { model: "truth-echo", prompt: "one two three" };
    const whole = await client.completions.create(asked);
    assert.equal(whole.choices[0].text, "one two three");
    let text = "";
    for await (const chunk of await client.completions.create({ ...asked, stream: true }))
      text += chunk.choices[0]?.text ?? "";
    assert.equal(text, whole.choices[0].text);
  },

  async "the raw response has our headers"() {
    const asked = { model: "truth-echo", messages: user("Hello") };
    const { data, response, request_id } = await client.chat.completions.create(asked).withResponse();
    assert.match(request_id, /^req_/);
    assert.equal(response.headers.get("x-crun-generation-id"), request_id);
    assert.ok(Number(response.headers.get("x-crun-cost")) > 0);
    assert.ok(data.usage.cost > 0);
  },

  async "an idempotency key gives the same answer again"() {
    const headers = { "Idempotency-Key": crypto.randomUUID() };
    const once = () => client.chat.completions.create({ model: "truth-echo", messages: user("Hello") }, { headers });
    const [first, second] = [await once().withResponse(), await once().withResponse()];
    assert.deepEqual(second.data, first.data);
    assert.equal(second.response.headers.get("x-crun-idempotent-replay"), "true");
  },

  async "its own retries get over an overloaded upstream"() {
    const patient = new OpenAI({ baseURL, apiKey, maxRetries: 4 });
    const answer = await patient.chat.completions.create({ model: "truth-fault-flaky-1", messages: user("Hello") });
    assert.equal(answer.choices[0].message.content, "Hello");
  },

  async "an upstream that fails is a server error with a request id"() {
    await assert.rejects(create({ model: "truth-fault-500", messages: user("Hello") }), (error) => {
      assert.ok(error instanceof OpenAI.InternalServerError);
      assert.equal(error.status, 502);
      assert.match(error.requestID, /^req_/);
      return true;
    });
  },

  async "too many requests are a rate limit error that says when"() {
    await assert.rejects(create({ model: "truth-fault-429", messages: user("Hello") }), (error) => {
      assert.ok(error instanceof OpenAI.APIError);
      assert.equal(error.status, 503);
      assert.ok(Number(error.headers.get("retry-after")) > 0);
      return true;
    });
  },

  async "an aborted stream stops"() {
    const controller = new AbortController();
    const slow = { messages: user("one two"), stream: true, sandbox: { chunks: 1000, chunk_delay_ms: 20 } };
    const stream = await client.chat.completions.create(
      { model: "truth-echo", ...slow },
      { signal: controller.signal },
    );
    let chunks = 0;
    for await (const _ of stream) if (++chunks === 5) controller.abort();
    assert.ok(chunks >= 5 && chunks < 1000);
  },
};
