"""The gateway in this process, with a real sandbox upstream on real sockets; its ASGI side is driven by hand."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
import pytest_asyncio
from django.conf import settings

from apps.billing.admission import RENEW
from apps.billing.balance_cache import money_key
from apps.core.crypto import keyed_digests
from apps.core.redis import single_try_client
from apps.core.scripts import StoreAway
from apps.gateway.catalog_feed import CatalogFeed
from apps.gateway.runtime import Runtime, start_runtime, stop_runtime
from apps.gateway.server.asgi import Gateway
from apps.gateway.server.direct import CLIENT
from apps.keys.contracts import KeyGrant
from apps.keys.keyformat import new_key
from apps.keys.lookup import KeyLookup
from apps.usage.contracts import JournalEntry, RequestClosed
from apps.usage.journal import read_entries
from crun.sandbox.server import Options, Sandbox
from crun.sandbox.truth import TruthEntry, read_truth
from tests.dialects.typed import is_published
from tests.factories import TARGET, offered, snapshot
from tests.gateway.riches import make_rich

UPSTREAM_KEY = "sk-upstream-canary-0123456789"
MODELS = {"echo": "sandbox-echo", "tools": "sandbox-tools", "json": "sandbox-json", "vision": "sandbox-vision"}


@dataclass
class Call:
    """One request through the ASGI entry, with the messages that the gateway sent."""

    sent: list[dict[str, Any]] = field(default_factory=list)
    task: "asyncio.Task[None] | None" = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    client: "CallClient" = field(init=False)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def events(self) -> list[Any]:
        lines = [line[6:] for line in self.body.split(b"\n\n") if line.startswith(b"data: ")]
        return [line.decode() if line == b"[DONE]" else orjson.loads(line) for line in lines]

    @property
    def request_id(self) -> str:
        return self.headers["x-request-id"]

    def leave(self) -> None:
        """The client closes its connection."""
        self.gone.set()
        if self.client.tell is not None:
            self.client.tell()

    async def until(self, condition: Callable[["Call"], bool]) -> None:
        """Wait until the gateway has sent enough."""
        async with asyncio.timeout(10):
            while not condition(self):  # noqa: ASYNC110 - it looks from outside, as a client does
                await asyncio.sleep(0.002)


@dataclass
class CallClient:
    """What `crun.serve` offers beside ASGI's messages. Its answers stand among those that were sent."""

    call: "Call"
    body: bytes
    is_ready: bool = True
    writes: int = 0
    tell: Callable[[], object] | None = None

    def take_body(self) -> bytes | None:
        return self.body

    def when_gone(self, tell: Callable[[], object]) -> None:
        self.tell = tell

    def answer(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bool:
        self.call.sent.append({"type": "http.response.start", "status": status, "headers": list(headers)})
        self.call.sent.append({"type": "http.response.body", "body": body})
        return True

    def begin(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        self.call.sent.append({"type": "http.response.start", "status": 200, "headers": list(headers)})
        return True

    def flush(self) -> None:
        """The head was sent."""

    def write(self, part: bytes) -> None:
        assert self.is_ready and part
        self.writes += 1
        self.call.sent.append({"type": "http.response.body", "body": part, "more_body": True})


@dataclass
class Bench:
    """A started gateway with its upstream and the means to look at both."""

    app: Gateway
    runtime: Runtime
    key: str
    truth_file: Path
    models: dict[str, Any]
    grant: KeyGrant

    def limit(self, **changes: Any) -> None:
        """Give the key, its project or its organization other limits: `key_limits=Limits(...)`."""
        self.grant = msgspec.structs.replace(self.grant, **changes)
        self.runtime.keys.distrust()

    def start(
        self,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | list[tuple[str, str]] | None = None,
        method: str = "",
        query: str = "",
        is_direct: bool = True,
        send: Callable[[dict[str, Any]], Awaitable[None]] | None = None,
    ) -> Call:
        """Send a request; the answer collects in the returned call. `is_direct`: by a server that has a Client. `send`
        stands in for that server's."""
        call = Call()
        raw = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
        call.client = CallClient(call, raw)
        given = (
            {"authorization": f"Bearer {self.key}", "content-type": "application/json"} if headers is None else headers
        )
        pairs = given.items() if isinstance(given, dict) else given
        scope = {
            "type": "http",
            "method": method or ("GET" if body is None else "POST"),
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in pairs],
            "client": ("127.0.0.1", 1),
            "extensions": {CLIENT: call.client} if is_direct else {},
        }
        messages = iter([{"type": "http.request", "body": raw, "more_body": False}])

        async def receive() -> dict[str, Any]:
            message = next(messages, None)
            if message is None:
                await call.gone.wait()
                return {"type": "http.disconnect"}
            return message

        async def collect(message: dict[str, Any]) -> None:
            call.sent.append(message)

        call.task = asyncio.create_task(self.app(scope, receive, send or collect))
        return call

    async def call(self, path: str, body: Any = None, **kwargs: Any) -> Call:
        """Send a request and wait for its whole answer, which must be what the SDKs' types say."""
        call = self.start(path, body, **kwargs)
        assert call.task is not None
        async with asyncio.timeout(20):
            await call.task
        if call.sent:
            is_published(path, call.status, call.headers, call.body)
        return call

    async def chat(self, model: str, text: str = "one two three", *, sandbox: Any = None, **fields: Any) -> Call:
        """A whole chat completion."""
        return await self.call("/api/v1/chat/completions", self.chat_body(model, text, sandbox=sandbox, **fields))

    def chat_body(
        self, model: str, text: str = "one two three", *, sandbox: Any = None, **fields: Any
    ) -> dict[str, Any]:
        self.offer(model)
        body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
        return body | ({"sandbox": sandbox} if sandbox is not None else {})

    def offer(self, model: str) -> None:
        """Put a sandbox model on offer under its own name."""
        if model not in self.models and model.startswith("sandbox-"):
            self.models[model] = offered(id=model, targets=(self.target(model),), input_modalities=("text", "image"))
            self.runtime.catalog.snapshot = snapshot(*self.models.values())

    def target(self, upstream_model: str) -> Any:
        return msgspec.structs.replace(
            TARGET,
            base_url=self.models["base"].targets[0].base_url,
            upstream_model=upstream_model,
            api_key=UPSTREAM_KEY,
        )

    def journal(self) -> list[JournalEntry]:
        segments = sorted(self.runtime.journal.folder.glob("*.seg"))
        return [entry for segment in segments for entry, _ in read_entries(segment.read_bytes())]

    def record(self, call: Call) -> RequestClosed:
        """The one end of this request in the journal."""
        ends = [entry for entry in self.journal() if isinstance(entry, RequestClosed)]
        (found,) = [entry for entry in ends if entry.opened.request_id == call.request_id]
        return found

    def truth(self) -> dict[str, TruthEntry]:
        return read_truth(self.truth_file)

    async def truth_of(self, call: Call) -> TruthEntry:
        """What the upstream says it did for this request, once it has said all."""
        async with asyncio.timeout(10):
            while (entry := self.truth().get(call.request_id)) is None or entry.outcome is None:  # noqa: ASYNC110 - the log is a file
                await asyncio.sleep(0.01)
        return entry


@pytest.fixture
def empty_store() -> Iterator[Any]:
    """A client of a Valkey that knows nothing."""
    client = single_try_client()
    client.flushdb()
    yield client
    client.close()


async def store_is_there(runtime: Runtime) -> None:
    """On a busy machine the first connection can come too late, and then all calls fail for a second."""
    async with asyncio.timeout(30):
        while True:
            try:
                await runtime.store.call(RENEW, money_key("org_nobody"), b"", 1, 1)
                return
            except StoreAway:
                await asyncio.sleep(0.05)


@pytest_asyncio.fixture
async def bench(empty_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """A gateway without a database: its catalog, its money and its one key are given to it.

    It gives a store up ten times later than in life: busy machines make Valkey slow, and that is not tested here."""
    for module in ("redis", "redis_link"):
        monkeypatch.setattr(f"apps.core.{module}.CALL_TIMEOUT_S", 1.0)
    monkeypatch.setattr("apps.gateway.runtime.rebuild", make_rich)
    monkeypatch.setattr(settings, "JOURNAL_DIR", tmp_path / "journal")
    truth_file = tmp_path / "truth.jsonl"
    key = new_key()
    grant = KeyGrant(
        key_id="key_1", organization_id="org_1", organization_slug="demo", project_id="proj_1",
        project_slug="default", name="Test", digest=keyed_digests(key, settings.KEY_PEPPERS)[0], created_at=0.0,
        expires_at=None, revoked_at=None,
    )  # fmt: skip

    async def read(digests: Sequence[str]) -> KeyGrant | None:
        return bench.grant if grant.digest in digests else None

    async def no_refresh(feed: CatalogFeed) -> None:
        """The catalog is given by hand."""

    monkeypatch.setattr(CatalogFeed, "refresh", no_refresh)

    async with Sandbox(Options(port=0, truth=truth_file, api_key=UPSTREAM_KEY)) as sandbox:
        runtime = await start_runtime(catalog_wait_s=0)
        runtime.keys = KeyLookup(read, settings.KEY_PEPPERS)
        base = msgspec.structs.replace(
            TARGET, base_url=sandbox.url, upstream_model="sandbox-echo", api_key=UPSTREAM_KEY
        )
        bench = Bench(Gateway(), runtime, key, truth_file, {"base": offered(id="base", targets=(base,))}, grant)
        runtime.catalog.snapshot = snapshot(*bench.models.values())
        await store_is_there(runtime)
        yield bench
        await stop_runtime()
