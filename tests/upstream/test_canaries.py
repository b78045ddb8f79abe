"""C38, E41: upstreams that echo our credential wherever they can, over real sockets. It must be nowhere afterwards.

Nowhere: the caller's answer, the log, the journal (which is all that the database gets of a request), and Valkey."""

import logging
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import msgspec
import orjson
import pytest
from django.db import connection

from apps.billing.recovery import close_orphan
from apps.catalog.contracts import Target
from apps.catalog.dialects import with_defaults
from apps.gateway.providers.short_lived import Granted, ShortLivedCredentials, Source
from apps.gateway.server import deadline
from apps.usage.shipping import ship
from tests.factories import offered, snapshot
from tests.gateway.conftest import Bench, Call
from tests.gateway.test_money import short_connections
from tests.upstream.eventstream import encoded, exception
from tests.upstream.faulty import HEAD, FaultyUpstream, chunk, reset, saying, words
from tests.upstream.test_faults_before_answer import ask, offer

__all__ = ["short_connections"]
UPSTREAM_MODEL = "secret-upstream-model"
REGION = {"region": "eu-central-1"}


def aws_credential() -> str:
    secret = "/".join(secrets.token_hex(6) + "+Zq" for _ in range(3))
    return f"AKIA{secrets.token_hex(8).upper()}:{secret}:IQoJb3/{secrets.token_hex(30)}=="


CREDENTIALS: dict[str, Callable[[], str]] = {
    "openai": lambda: f"sk-proj-{secrets.token_urlsafe(40)}",
    "openai-responses": lambda: f"org-key-{secrets.token_urlsafe(40)}",
    "azure": lambda: secrets.token_hex(16),
    "anthropic": lambda: f"sk-ant-api03-{secrets.token_urlsafe(40)}",
    "gemini": lambda: f"AIzaSy{secrets.token_urlsafe(24)}",
    "bedrock": aws_credential,
}


def http(body: bytes, *, status: int = 400, kind: str = "application/json", head: str = "") -> bytes:
    lines = f"HTTP/1.1 {status} No\r\ncontent-type: {kind}\r\n{head}content-length: {len(body)}\r\n"
    return lines.encode() + b"connection: close\r\n\r\n" + body


def error(told: str, *, status: int = 400, **fields: Any) -> bytes:
    """The sentence at all the places where OpenAI, Anthropic, Google and AWS have it."""
    inner = {"message": told, "type": "invalid_request_error", "status": "INVALID_ARGUMENT", **fields}
    return http(orjson.dumps({"type": "error", "error": inner, "message": told, "Message": told}), status=status)


def sentences(key: str) -> Iterator[str]:
    """What vendors say of a key that they were sent."""
    yield f"Incorrect API key provided: {key}."
    yield f"GET https://api.vendor.example/v1/models?key={key}&alt=json failed"
    yield f"api.vendor.example/v1/models?key={quote(key, safe='')} failed"
    yield f"authorization: Bearer {key}"
    yield f"x-api-key={key}; api-key: {key}"
    yield orjson.dumps({"error": {"authorization": key}}).decode()
    yield orjson.dumps({"error": orjson.dumps({"key": key}).decode().replace("/", "\\/")}).decode()
    yield f"<b>{key.upper()}</b> {key.lower()}"
    yield f"{key} " * 500
    yield "x" * 990 + key + "y" * 990
    yield f"Bad\u2028key\n{key}\x00"


def shapes(key: str) -> dict[str, bytes]:
    """Name -> everything that an upstream says."""
    told = f"Incorrect API key provided: {key}."
    event = {"message": told, "type": key, "code": key, "status": key}
    told_by_status = {f"error {status}": error(told, status=status) for status in REFUSALS}
    said = {f"sentence {number}": error(sentence) for number, sentence in enumerate(sentences(key))}
    usage = {"prompt_tokens": key, "inputTokens": key, "promptTokenCount": key, "input_tokens": key, "note": [key]}
    answer = {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
        "content": [{"type": "text", "text": "ok"}], "stop_reason": "end_turn", "model": key, "id": key,
        "candidates": [{"content": {"parts": [{"text": "ok"}]}, "finishReason": "STOP"}], "modelVersion": key,
        "output": {"message": {"content": [{"text": "ok"}]}}, "stopReason": "end_turn", "system_fingerprint": key,
        "usage": usage, "usageMetadata": usage, "provider": key, "error_message": told,
    }  # fmt: skip
    return {
        **told_by_status,
        **said,
        "param and code": error("no", param=key, code=key, type=key),
        "param with a key in it": error("no", param=f"headers.{key}", code=f"bad_{key}"),
        "details": error("no", details=[{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": key}]),
        "innererror": error("no", code="content_filter", innererror={"code": key, "message": told}),
        "a list": http(orjson.dumps([{"error": {"message": told}}])),
        "a string": http(orjson.dumps({"error": told, "message": told})),
        "HTML": http(f"<html><title>400</title>{told}</html>".encode(), kind="text/html"),
        "HTML, as if it were fine": http(f"<html>{told}</html>".encode(), status=200, kind="text/html"),
        "an error, as if it were fine": error(told, status=200),
        "too long": http(orjson.dumps({"error": {"message": key * 4_000}})),
        "a redirect": http(b"", status=302, head=f"location: https://vendor.example/?key={key}\r\n"),
        "a redirect with a user": http(
            b"", status=307, head=f"location: https://{key}@vendor.example/\r\nrefresh: 0;{key}\r\n"
        ),
        "a traceback": http(
            f'Traceback (most recent call last):\n  File "/srv/{key}/app.py", line 1\nValueError: {told}'.encode(),
            status=500,
            kind="text/plain",
        ),
        "a page with a script": http(
            f"<script>var k='{key}'</script><!-- {key} -->".encode(), status=503, kind="text/html"
        ),
        "a challenge": http(b"{}", status=401, head=f'www-authenticate: Bearer realm="{key}", error="{key}"\r\n'),
        "a problem": http(
            orjson.dumps({"type": f"https://{key}/", "title": told, "detail": told, "instance": key}),
            kind="application/problem+json",
        ),
        "XML": http(
            f"<Error><Code>{key}</Code><Message>{told}</Message></Error>".encode(), status=403, kind="text/xml"
        ),
        "headers": http(b"{}", status=401, head=f"x-echo: {key}\r\nset-cookie: key={key}\r\nretry-after: {key}\r\n"),
        "a reason": f"HTTP/1.1 500 {key}\r\ncontent-length: 0\r\n\r\n".encode(),
        "no HTTP": f"{told}\r\n\r\n".encode(),
        "a broken header": f"HTTP/1.1 200 OK\r\n{key}\r\n\r\n".encode(),
        "usage, and beside the answer": http(orjson.dumps(answer), status=200),
        "an error in the stream": HEAD + words(2) + chunk(b"data: " + orjson.dumps({"error": event}) + b"\n\n"),
        "an error event": HEAD
        + chunk(b"event: error\ndata: " + orjson.dumps({"type": "error", "error": event}) + b"\n\n"),
        "garbage in the stream": HEAD + words(2) + chunk(f"data: {told}\n\n: {key}\n\nid: {key}\n\n".encode()),
        "an exception in the stream": HEAD + chunk(exception("validationException", told)),
        "an error frame": HEAD + chunk(encoded({":message-type": "error", ":error-message": told}, told.encode())),
        "a chunk's extension": HEAD + f"5;key={key}\r\ndata:\r\nzz{key}".encode(),
        "trailers": HEAD + words(1) + f"0\r\nx-key: {key}\r\n\r\n".encode(),
    }


REFUSALS = (400, 401, 402, 403, 404, 408, 409, 413, 418, 422, 424, 429, 500, 502, 503, 529)


@dataclass
class Places:
    """Where something could have stayed."""

    bench: Bench
    store: Any
    log: pytest.LogCaptureFixture
    calls: list[Call]
    rows: list[str] = field(default_factory=list)
    """Every row of every table, where there is a database."""

    def texts(self) -> Iterator[str]:
        yield from (str(call.sent) for call in self.calls)
        yield from self.rows
        yield self.log.text
        yield from (str(record.__dict__) for record in self.log.records)
        segments = self.bench.runtime.journal.folder.glob("*.seg")
        yield from (segment.read_bytes().decode("latin-1") for segment in segments)
        readers = {
            b"string": self.store.get,
            b"hash": self.store.hgetall,
            b"set": self.store.smembers,
            b"list": lambda name: self.store.lrange(name, 0, -1),
            b"zset": lambda name: self.store.zrange(name, 0, -1),
            b"stream": self.store.xrange,
        }
        for name in self.store.scan_iter(count=1_000):
            kind = self.store.type(name)
            yield str((name, readers[kind if isinstance(kind, bytes) else kind.encode()](name)))


def secrets_of(key: str) -> Iterator[str]:
    for part in {key, *key.split(":")}:
        yield from {part.lower(), quote(part, safe="").lower(), part.replace("/", "\\/").lower()}


async def nobody_kept(keys: list[str], places: Places) -> None:
    await places.bench.runtime.reservations.drain(10)
    found = [text.lower().replace("\\\\", "\\") for text in places.texts()]
    assert len(found) > len(places.calls) + 2
    leaks = [(secret, text[:2_000]) for key in keys for secret in secrets_of(key) for text in found if secret in text]
    assert leaks == []


def target(upstream: FaultyUpstream, dialect: str, key: str) -> Target:
    options = with_defaults(dialect, REGION if dialect == "bedrock" else {})
    return upstream.target(dialect=dialect, api_key=key, upstream_model=UPSTREAM_MODEL, options=options)


@pytest.mark.asyncio
@pytest.mark.parametrize("dialect", CREDENTIALS)
async def test_c38_a_credential_that_is_echoed_stays_nowhere(
    bench: Bench, empty_store: Any, caplog: pytest.LogCaptureFixture, dialect: str
) -> None:
    caplog.set_level(logging.DEBUG)
    places, keys = Places(bench, empty_store, caplog, []), []
    async with FaultyUpstream(saying()) as upstream:
        names = list(shapes(""))
        for name in names:
            for stream in (False, True):
                keys.append(key := CREDENTIALS[dialect]())
                upstream.behaviour = saying(shapes(key)[name])
                offer(bench, target(upstream, dialect, key))
                call = await ask(bench, stream=stream)
                places.calls.append(call)
                assert UPSTREAM_MODEL.encode() not in call.body
                if name.startswith("error 401"):
                    assert call.json["error"]["code"] == "upstream_unauthorized"
        assert upstream.requests == 2 * len(names) == len(keys) and len(names) >= 40
    await nobody_kept(keys, places)


RENEWED: dict[str, tuple[dict[str, str], Callable[[], str], Callable[[], str]]] = {
    "azure": (
        {"auth": "entra-client"},
        lambda: f"acme.example:{secrets.token_hex(8)}:{secrets.token_urlsafe(6)}:{secrets.token_urlsafe(20)}",
        lambda: f"eyJ{secrets.token_urlsafe(40)}.{secrets.token_urlsafe(60)}.{secrets.token_urlsafe(40)}",
    ),
    "bedrock": (
        {**REGION, "auth": "role", "role_arn": "arn:aws:iam::123456789012:role/crun"},
        aws_credential,
        aws_credential,
    ),
}
"""Dialect -> its options, what a credential is got with, and what is got."""


@pytest.mark.asyncio
@pytest.mark.parametrize("dialect", RENEWED)
async def test_c38_nor_does_one_that_was_got_for_a_while_or_what_it_was_got_with(
    bench: Bench, empty_store: Any, caplog: pytest.LogCaptureFixture, dialect: str
) -> None:
    caplog.set_level(logging.DEBUG)
    places, keys = Places(bench, empty_store, caplog, []), []
    options, new_secret, new_credential = RENEWED[dialect]
    got: list[str] = []

    async def ask_for_it(source: Source) -> Granted:
        return Granted(got[-1], 3_600)

    bench.runtime.transport._short_lived = ShortLivedCredentials({"entra": ask_for_it, "aws": ask_for_it})
    async with FaultyUpstream(saying()) as upstream:
        for name in shapes(""):
            secret = new_secret()
            for credential in (new_credential(), secret):
                got.append(credential if credential is not secret else new_credential())
                keys += [secret, got[-1]]
                upstream.behaviour = saying(shapes(credential)[name])
                route = {"dialect": dialect, "api_key": secret, "upstream_model": UPSTREAM_MODEL}
                offer(bench, upstream.target(**route, options=with_defaults(dialect, options)))
                places.calls.append(await ask(bench))
        assert upstream.requests == len(places.calls) >= 80
    await nobody_kept(keys, places)


@pytest.mark.asyncio
@pytest.mark.parametrize("dialect", CREDENTIALS)
async def test_c38_nor_one_whose_upstream_cannot_be_reached(
    bench: Bench, empty_store: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, dialect: str
) -> None:
    """No TLS, no name, no port, another protocol, silence, RST, and a key that fits into no header."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(deadline, "configured_limits", lambda: [0.2, 60.0, 0.2, 30.0])
    places, keys = Places(bench, empty_store, caplog, []), []
    async with FaultyUpstream(saying(then=reset)) as upstream:
        for address in (
            upstream.target().base_url.replace("http:", "https:"),
            "http://nowhere.invalid/v1",
            "http://127.0.0.1:1/v1",
            "http://[::1]:1/v1",
            "ftp://127.0.0.1/v1",
            upstream.target().base_url,
        ):
            keys.append(key := CREDENTIALS[dialect]())
            offer(bench, msgspec.structs.replace(target(upstream, dialect, key), base_url=address))
            places.calls.append(await ask(bench))
            assert places.calls[-1].status in (502, 504)
        upstream.behaviour = saying(then=upstream.hang)
        offer(bench, target(upstream, dialect, key))
        places.calls.append(await ask(bench))
        assert places.calls[-1].status == 504
        keys.append(key := f"{CREDENTIALS[dialect]()}\r\nx: y")
        offer(bench, target(upstream, dialect, key))
        places.calls.append(await ask(bench))
        assert places.calls[-1].status == 502
    await nobody_kept(keys, places)


@pytest.mark.asyncio
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
        ("messages", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 5}),
        ("completions", {"prompt": "x"}),
        ("responses", {"input": "x", "store": True}),
        ("embeddings", {"input": "x"}),
    ],
)
async def test_c38_nor_at_any_endpoint_nor_in_the_database(
    bench: Bench,
    empty_store: Any,
    caplog: pytest.LogCaptureFixture,
    short_connections: None,
    path: str,
    fields: dict[str, Any],
) -> None:
    """Requests with an idempotency key, whose answers are kept; all is shipped, every row of every table is read."""
    caplog.set_level(logging.DEBUG)
    places, keys = Places(bench, empty_store, caplog, []), []
    kinds: dict[str, Any] = {"output_modalities": ("embeddings",)} if path == "embeddings" else {}
    async with FaultyUpstream(saying()) as upstream:
        for name in shapes(""):
            for stream in (False, True)[: 1 if path == "embeddings" else 2]:
                keys.append(key := CREDENTIALS["openai"]())
                upstream.behaviour = saying(shapes(key)[name])
                model = offered(id="unkept", targets=(target(upstream, "openai", key),), **kinds)
                bench.runtime.catalog.snapshot = snapshot(model)
                body = {"model": "unkept", **fields} | ({"stream": True} if stream else {})
                headers = {"authorization": f"Bearer {bench.key}", "idempotency-key": f"{name} {stream}"}
                places.calls.append(await bench.call(f"/api/v1/{path}", body, headers=headers))
    await bench.runtime.reservations.drain(10)
    journals = bench.runtime.journal.folder.parent
    await bench.runtime.bridge.read(lambda: ship(journals, close_orphan=close_orphan))
    places.rows = await bench.runtime.bridge.read(every_row)
    assert sum("unkept" in row for row in places.rows) >= len(keys) // 2
    await nobody_kept(keys, places)


def every_row() -> list[str]:
    """What stands in the database, as text."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        tables = [name for (name,) in cursor.fetchall()]
        rows: list[str] = []
        for table in tables:
            cursor.execute(f'SELECT t::text FROM "{table}" t')  # noqa: S608 - the database's own names
            rows += [str(row) for (row,) in cursor.fetchall()]
    return rows
