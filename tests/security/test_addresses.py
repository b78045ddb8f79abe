"""Every place that takes an address, against every address of the corpus: a clear refusal, and no connection."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from functools import partial
from ipaddress import ip_network
from typing import Any

import httpx
import pytest
import pytest_asyncio

from apps.api.webhook_addresses import Lookups
from apps.api.webhook_transport import CheckedTransport
from apps.billing.alerts.addresses import check_url
from apps.catalog.base_urls import base_url_problem
from apps.catalog.document import CatalogDocumentError, parse_catalog
from apps.catalog.importing import import_catalog
from apps.catalog.models import Provider
from apps.console.connection import check_connection
from apps.console.providers import ProviderForm
from apps.core.addresses import ANY_PRIVATE, AddressRefused, private_networks
from apps.core.errors import ConfigurationError, InvalidInput
from apps.gateway.providers.base import UpstreamRequest
from apps.gateway.providers.short_lived import NoCredential, Source
from apps.gateway.providers.transport import Transport, UpstreamUnreachable
from apps.portal.alert_forms import EndpointForm
from tests.gateway.conftest import Bench, bench, empty_store
from tests.security.addresses import LOOPBACK, NAMES, NEVER, PRIVATE, WRITTEN, corpus
from tests.security.canary import Canary, Resolver, watching
from tests.upstream.conftest import upstream
from tests.upstream.scripted import PUBLIC_MODEL, ScriptedUpstream

__all__ = ["bench", "empty_store", "upstream"]
CHAT = "/api/v1/chat/completions"
GOOD_URLS = ["https://api.openai.com/v1", "https://8.8.8.8/v1", "https://[2606:4700::1111]:8443/v1"]
PRIVATE_URLS = [
    "http://127.0.0.1:8000/v1",
    "http://localhost/v1",
    "http://vllm:8000/v1",
    "http://[::1]:9/v1",
    "http://10.0.0.7/v1",
]


@pytest.fixture
def canary() -> Iterator[Canary]:
    with watching() as one:
        yield one


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    return Resolver(monkeypatch, {name: [addresses] for name, addresses in NAMES.items()})


def urls(canary: Canary, *, scheme: str = "http") -> list[str]:
    """The whole corpus, aimed at the canary."""
    named = [f"http://{name}:{{port}}/v1" for name in NAMES]
    filled = [each.replace("{port}", str(canary.port)) for each in [*corpus(), *named]]
    return filled if scheme == "http" else [each.replace("http:", "https:", 1) for each in filled]


def aimed(canary: Canary, written: str) -> str:
    return written.replace("{port}", str(canary.port))


def not_names(canary: Canary) -> list[str]:
    """What its text alone gives away."""
    return [aimed(canary, each) for each in corpus()]


def test_the_corpus_is_large_and_the_canary_sings(canary: Canary) -> None:
    assert len(set(corpus())) + len(NAMES) >= 180
    for host in ("127.0.0.1", "127.9.9.9", "::1"):
        socket.create_connection((host, canary.port), timeout=5).close()
    while canary.connections < 3:
        pass


# --- webhooks: customers name them ---------------------------------------------------------------------------------


@pytest.mark.parametrize("written", corpus())
def test_a_webhooks_address_is_refused_where_it_is_entered(written: str) -> None:
    for url in (written, written.replace("http:", "https:", 1)):
        with pytest.raises(InvalidInput):
            check_url(url.replace("{port}", "8443"))
        form = EndpointForm({"url": url.replace("{port}", "8443"), "kinds": ["key.paused"]})
        assert "url" in form.errors


def test_a_webhook_connects_to_nothing_of_it_even_if_it_was_stored(canary: Canary, resolver: Resolver) -> None:
    tls = httpx.create_ssl_context(trust_env=False)

    async def post(url: str) -> str:
        transport = CheckedTransport(resolve=partial(Lookups().resolve, "org_1"), tls=tls)
        async with httpx.AsyncClient(transport=transport, trust_env=False, timeout=5) as client:
            try:
                await client.post(url, content=b"{}")
            except (
                AddressRefused,
                httpx.ConnectError,
                httpx.InvalidURL,
                httpx.UnsupportedProtocol,
                UnicodeError,
            ) as no:
                return type(no).__name__
        return "sent"

    async def post_all() -> dict[str, str]:
        return {url: await post(url) for url in urls(canary, scheme="https") if not _is_foreign(url)}

    outcomes = asyncio.run(post_all())
    assert [url for url, outcome in outcomes.items() if outcome == "sent"] == []
    assert all(outcomes[f"https://{name}:{canary.port}/v1"] == "AddressRefused" for name in NAMES)
    assert canary.connections == 0


# --- providers: operators name them --------------------------------------------------------------------------------


@pytest.mark.parametrize("written", [*(f"http://{host}:{{port}}/v1" for host in NEVER), *WRITTEN])
def test_no_operator_may_enter_it_for_a_provider(written: str) -> None:
    url = written.replace("{port}", "8443")
    assert base_url_problem(url, ANY_PRIVATE)
    with pytest.raises(CatalogDocumentError):
        parse_catalog(f"providers: [{{id: p, dialect: openai, base_url: {url!r}}}]", source="test")


@pytest.mark.django_db
def test_the_console_refuses_it_too(settings: Any) -> None:
    def is_refused(url: str) -> bool:
        return "base_url" in ProviderForm({"id": "p", "name": "P", "dialect": "openai", "base_url": url}).errors

    for private, refused in ((ANY_PRIVATE, NEVER), ((), [*NEVER, *LOOPBACK, *PRIVATE])):
        settings.PRIVATE_UPSTREAMS = private
        written = [
            *(f"http://{host}:8443/v1" for host in refused),
            *(each.replace("{port}", "8443") for each in WRITTEN),
        ]
        # The form takes white space off both ends before anybody looks.
        assert [url for url in written if url == url.strip() and not is_refused(url)] == []
        assert [url for url in GOOD_URLS if is_refused(url)] == []
    settings.PRIVATE_UPSTREAMS = ANY_PRIVATE
    assert [url for url in PRIVATE_URLS if is_refused(url)] == []


@pytest.mark.django_db
def test_an_import_keeps_to_the_operators_setting(settings: Any) -> None:
    listed = "providers: [{id: p, dialect: openai, base_url: 'URL'}]"
    settings.PRIVATE_UPSTREAMS = ()
    for url in PRIVATE_URLS:
        with pytest.raises(InvalidInput, match="CRUN_PRIVATE_UPSTREAMS"):
            import_catalog(parse_catalog(listed.replace("URL", url), source="test"))
    assert not Provider.objects.exists()
    settings.PRIVATE_UPSTREAMS = private_networks("127.0.0.0/8,::1,10.0.0.0/8")
    for url in PRIVATE_URLS:
        import_catalog(parse_catalog(listed.replace("URL", url), source="test"))
    with pytest.raises(InvalidInput):
        import_catalog(parse_catalog(listed.replace("URL", "http://192.168.1.1/v1"), source="test"))


@pytest_asyncio.fixture
async def strict() -> AsyncIterator[Transport]:
    client = Transport(connect_timeout_s=5.0, private=())
    yield client
    await client.close()


async def ask(client: Transport, url: str) -> str:
    """What becomes of a request to a model there."""
    request = UpstreamRequest(url=f"{url}/chat/completions", headers={"authorization": "Bearer sk-canary"}, body=b"{}")
    try:
        await client.post(request, on_send=lambda: None)
    except UpstreamUnreachable as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is not what is expected
        return f"{type(error).__name__}: connected"
    return "connected"


@pytest.mark.asyncio
async def test_the_data_path_connects_to_nothing_of_it(
    canary: Canary, resolver: Resolver, strict: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{canary.port}")
    outcomes = {url: await ask(strict, url) for url in urls(canary) if not _is_foreign(url)}
    assert {url: outcome for url, outcome in outcomes.items() if "connected" in outcome} == {}
    assert {outcomes[f"http://{name}:{canary.port}/v1"] for name in NAMES} == {"AddressRefused"}
    assert {outcomes[f"http://{host}:{canary.port}/v1"] for host in NEVER} <= {"AddressRefused", "ValueError"}
    assert canary.connections == 0


@pytest.mark.asyncio
async def test_nor_does_the_way_to_a_token(canary: Canary, resolver: Resolver, strict: Transport) -> None:
    client = Source("entra", "acme.example:1111-2222:a secret", "public")
    for url in urls(canary):
        strict._authority = url
        with pytest.raises(NoCredential, match="cannot be reached"):
            await strict._entra_token(client)
    assert canary.connections == 0


@pytest.mark.asyncio
async def test_with_private_networks_allowed_the_rest_stays_out_of_reach(canary: Canary, resolver: Resolver) -> None:
    client = Transport(connect_timeout_s=5.0)
    try:
        refused = [f"http://{host}:{canary.port}/v1" for host in NEVER]
        refused += [
            f"http://{name}.example:{canary.port}/v1"
            for name in ("mapped", "nat64", "linklocal", "zone", "zero", "ula")
        ]
        assert {url: outcome for url in refused if "connected" in (outcome := await ask(client, url))} == {}
        assert canary.connections == 0
        for host in ("127.0.0.1", "localhost", "[::1]", "127.0.0.1.nip.example"):
            assert "connected" in await ask(client, f"http://{host}:{canary.port}/v1")
        assert canary.connections == 4
    finally:
        await client.close()


@pytest.mark.asyncio
async def test_a_name_that_changes_its_mind_gains_nothing(canary: Canary, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked up once; what was checked is what is connected to."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.7", 0)
    port = server.sockets[0].getsockname()[1]
    names = {"rebind.example": [["127.0.0.7"], ["::1"]], "back.example": [["127.0.0.7"], ["169.254.169.254"]]}
    resolver = Resolver(monkeypatch, names)
    client = Transport(connect_timeout_s=5.0, private=[ip_network("127.0.0.7")])
    try:
        for name in ("rebind.example", "back.example"):
            assert "connected" in await ask(client, f"http://{name}:{port}/v1")
            assert resolver.asked[name] == 1
            assert await ask(client, f"http://{name}:{canary.port}/v1") == "AddressRefused"
        assert canary.connections == 0
    finally:
        await client.close()
        server.close()


@pytest.mark.django_db
def test_the_connection_test_of_the_console_connects_to_nothing_of_it(
    canary: Canary, resolver: Resolver, settings: Any
) -> None:
    settings.PRIVATE_UPSTREAMS = ()
    provider = Provider(id="p", name="P", dialect="openai")
    for url in urls(canary):
        if _is_foreign(url):
            continue
        provider.base_url = url
        assert check_connection(provider).level == "error", url
    assert canary.connections == 0
    settings.PRIVATE_UPSTREAMS = ANY_PRIVATE
    provider.base_url = f"http://localhost:{canary.port}/v1"
    assert check_connection(provider).headline.startswith("The answer is not HTTP")
    assert canary.connections == 1


def _is_foreign(url: str) -> bool:
    """`good.example` is a stranger, whom the text of some URLs may well name: no client here knows it."""
    return "http" not in url[:12].lower()


# --- media: callers name them, and nothing here fetches them --------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("dialect", ["openai", "azure", "anthropic", "gemini", "bedrock", "openai-responses"])
async def test_media_at_such_an_address_are_refused_and_nobody_is_asked(
    bench: Bench, upstream: ScriptedUpstream, canary: Canary, dialect: str
) -> None:
    options = {"azure": {"api_version": "2024-10-21"}, "bedrock": {"region": "eu-central-1"}}.get(dialect)
    upstream.offer(bench, dialect, options=options)
    upstream.answer(b"{}")
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in not_names(canary)]
    if dialect == "openai":
        for url in not_names(canary):
            parts += [
                {"type": "file", "file": {"file_data": url}},
                {"type": "video_url", "video_url": {"url": url}},
                {"type": "input_audio", "input_audio": {"data": url, "format": "wav"}},
                {"type": "image_url", "image_url": url},
            ]
    for part in parts:
        call = await bench.call(CHAT, {"model": PUBLIC_MODEL, "messages": [{"role": "user", "content": [part]}]})
        assert (call.status, call.json["error"]["type"]) == (400, "invalid_request_error"), part
        assert call.json["error"]["param"].startswith("messages[0].content[0]"), part
    assert upstream.requests == []
    assert canary.connections == 0


@pytest.mark.asyncio
async def test_public_media_and_data_go_on_as_they_are(
    bench: Bench, upstream: ScriptedUpstream, canary: Canary
) -> None:
    upstream.offer(bench, "openai")
    upstream.answer(b"{}")
    addresses = [
        "https://example.com/a.png?x=1#part", "http://93.184.216.34/ä.png", "data:image/png;base64,AAAA",
        "DATA:image/png;base64,AAAA", "https://[2606:4700::1111]/x", *(f"https://{name}/x.png" for name in NAMES),
    ]  # fmt: skip
    for address in addresses:
        part = {"type": "image_url", "image_url": {"url": address}}
        await bench.call(CHAT, {"model": PUBLIC_MODEL, "messages": [{"role": "user", "content": [part]}]})
    sent = [each.json["messages"][0]["content"][0]["image_url"]["url"] for each in upstream.requests]
    assert sent == addresses
    assert canary.connections == 0


# --- redirects -----------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_an_upstream_that_redirects_is_not_followed(
    bench: Bench, upstream: ScriptedUpstream, canary: Canary, status: int
) -> None:
    upstream.offer(bench, "openai")
    for location in (f"http://127.0.0.1:{canary.port}/", f"//localhost:{canary.port}/", f"http://[::1]:{canary.port}/"):
        upstream.answers.clear()
        upstream.answer(b"", status=status, headers={"location": location, "refresh": f"0;url={location}"})
        call = await bench.call(CHAT, {"model": PUBLIC_MODEL, "messages": [{"role": "user", "content": "x"}]})
        assert call.status == 502
        assert str(canary.port).encode() not in call.body
    assert canary.connections == 0


# --- the setting ---------------------------------------------------------------------------------------------------


def test_the_setting_is_read_as_it_is_documented() -> None:
    assert private_networks("on") == private_networks(" ON ") == ANY_PRIVATE
    assert private_networks("off") == ()
    assert private_networks("127.0.0.1, 10.1.0.0/16") == (ip_network("127.0.0.1"), ip_network("10.1.0.0/16"))
    for wrong in ("", "yes", "10.1.0.1/16", "localhost", "127.0.0.1,,"):
        with pytest.raises(ConfigurationError):
            private_networks(wrong)
