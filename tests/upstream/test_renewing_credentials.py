"""Credentials that end by themselves: clients of Entra and roles of AWS, with token endpoints that do as they like."""

import asyncio
import traceback
from typing import Any
from urllib.parse import parse_qs

import msgspec
import orjson
import pytest

from apps.catalog.dialects import with_defaults
from apps.gateway.dialects.chat import parse_chat
from apps.gateway.providers import short_lived
from apps.gateway.providers.aws_roles import role_credential
from apps.gateway.providers.bedrock import Bedrock
from apps.gateway.providers.entra import entra_token
from apps.gateway.providers.short_lived import Granted, NoCredential, ShortLivedCredentials, Source
from apps.policies.own_credentials import kind_of
from tests.factories import TARGET, offered
from tests.gateway.conftest import Bench
from tests.gateway.own_keys import answer
from tests.upstream.aws_signature import ACCESS_KEY, SECRET_KEY, TOKEN, verify
from tests.upstream.bedrock_shapes import WHOLE
from tests.upstream.scripted import PUBLIC_MODEL, Answer, ScriptedUpstream

SECRET = "hush:hush"
CLIENT = f"acme.onmicrosoft.com:11111111-2222:{SECRET}"
ROLE = "arn:aws:iam::123456789012:role/crun"
STS = f"""<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>{ACCESS_KEY}</AccessKeyId><SecretAccessKey>{SECRET_KEY}</SecretAccessKey><SessionToken>{TOKEN}</SessionToken>
<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"""
DENIED = """<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>
<Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"""


def token(name: str, lifetime_s: object = 3_599) -> Answer:
    told = {"token_type": "Bearer", "expires_in": lifetime_s, "access_token": name}
    return Answer([orjson.dumps(told)], headers={"content-type": "application/json"})


class Endpoint:
    """Gives what a test wrote down, one after the other, and waits where it is told to."""

    def __init__(self, *gives: Granted | Exception) -> None:
        self.gives = list(gives)
        self.asked = 0
        self.is_asked = asyncio.Event()
        self.lets_go = asyncio.Event()
        self.lets_go.set()

    async def __call__(self, source: Source) -> Granted:
        self.asked += 1
        self.is_asked.set()
        await self.lets_go.wait()
        given = self.gives.pop(0)
        if isinstance(given, Exception):
            raise given
        return given


ONE = Source("entra", CLIENT, "public")


@pytest.mark.asyncio
async def test_it_is_asked_for_once_for_all_who_wait_and_who_leaves_takes_nothing_away() -> None:
    endpoint = Endpoint(Granted("a", 3_600))
    kept = ShortLivedCredentials({"entra": endpoint})
    endpoint.lets_go.clear()
    waiting = [asyncio.create_task(kept.get(ONE)) for _ in range(20)]
    await endpoint.is_asked.wait()
    waiting[0].cancel()
    await asyncio.sleep(0)
    endpoint.lets_go.set()
    assert await asyncio.gather(*waiting[1:]) == ["a"] * 19
    assert (await kept.get(ONE), endpoint.asked) == ("a", 1)


@pytest.mark.asyncio
async def test_the_old_one_serves_while_the_next_is_got_and_when_that_fails() -> None:
    endpoint = Endpoint(Granted("a", 3_600), NoCredential("away"), Granted("b", 3_600))
    kept = ShortLivedCredentials({"entra": endpoint})
    assert await kept.get(ONE) == "a"
    inner = kept._kept[ONE]
    inner.renew_at = 0.0
    endpoint.lets_go.clear()
    assert await kept.get(ONE) == "a"  # nobody waits for the next one
    endpoint.lets_go.set()
    assert inner.task is not None
    await asyncio.wait({inner.task})
    assert (await kept.get(ONE), endpoint.asked) == ("a", 2)  # not asked again at once
    inner.again_at = 0.0
    assert await kept.get(ONE) == "a"
    await asyncio.wait({inner.task})
    assert (await kept.get(ONE), endpoint.asked) == ("b", 3)


@pytest.mark.asyncio
async def test_one_that_has_ended_is_never_given() -> None:
    endpoint = Endpoint(Granted("a", 0.02), NoCredential("no", is_refused=True), Granted("b", 3_600))
    kept = ShortLivedCredentials({"entra": endpoint})
    assert await kept.get(ONE) == "a"
    await asyncio.sleep(0.02)
    for _ in range(3):
        with pytest.raises(NoCredential) as failure:
            await kept.get(ONE)
        assert failure.value.is_refused
    assert endpoint.asked == 2  # for a while nobody is asked
    told_by = [frame.f_code.co_name for frame, _ in traceback.walk_tb(kept._kept[ONE].failure.__traceback__)]
    assert "get" not in told_by  # with its callers, and their requests, which would stay as long as the failure
    kept._kept[ONE].again_at = 0.0
    assert await kept.get(ONE) == "b"


@pytest.mark.asyncio
async def test_a_slow_endpoint_is_given_up_and_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(short_lived, "PATIENCE_S", 0.05)
    slow, other = Endpoint(Granted("a", 3_600)), Endpoint(Granted("role", 3_600))
    kept = ShortLivedCredentials({"entra": slow, "aws": other})
    slow.lets_go.clear()
    waits = asyncio.create_task(kept.get(ONE))
    assert await kept.get(Source("aws", "", "eu-central-1")) == "role"
    with pytest.raises(NoCredential, match="in time"):
        await waits


@pytest.mark.asyncio
async def test_one_that_is_refused_is_got_anew_unless_it_is_young(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = ShortLivedCredentials({"entra": Endpoint(Granted("a", 3_600), Granted("b", 3_600))})
    assert await kept.get(ONE) == "a"
    kept.refused(ONE)
    assert await kept.get(ONE) == "a"
    monkeypatch.setattr(short_lived, "MISTRUSTED_AFTER_S", 0.0)
    kept.refused(ONE)
    assert await kept.get(ONE) == "b"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("given", "is_refused"),
    [
        (Answer([b'{"error":"invalid_client","error_description":"hush:hush"}'], 401), True),
        (Answer([b'{"error":"unauthorized_client"}'], 400), True),
        (Answer([b"<html>"], 503), False),
        (Answer([b'{"error":"temporarily_unavailable"}'], 429), False),
        (Answer([b"<html>"]), False),
        (token("a b"), False),
        (token("a", 0), False),
        (token("a", "soon"), False),
        (Answer([b'{"access_tok'], cut=True), False),
        (Answer([], 302, {"location": "https://elsewhere.example/"}), False),
    ],
)
async def test_what_is_no_token_is_told_without_a_secret(
    bench: Bench, upstream: ScriptedUpstream, given: Answer, is_refused: bool
) -> None:
    upstream.answers.append(given)
    bench.runtime.transport._authority = upstream.url
    with pytest.raises(NoCredential) as failure:
        await bench.runtime.transport._entra_token(ONE)
    assert failure.value.is_refused is is_refused
    assert "hush" not in str(failure.value)


@pytest.mark.asyncio
@pytest.mark.parametrize("secret", ["", "sk-1", "a/../b:1:x", "acme:1 1:x", "acme:1:", "acme@evil.example:1:x"])
async def test_a_secret_that_is_none_goes_nowhere(secret: str) -> None:
    async def send(request: Any) -> Any:
        raise AssertionError(request)

    with pytest.raises(NoCredential) as failure:
        await entra_token(send, Source("entra", secret, "public"))
    assert failure.value.is_refused


@pytest.mark.asyncio
async def test_azure_is_asked_with_the_token_of_a_client(bench: Bench, upstream: ScriptedUpstream) -> None:
    upstream.offer(bench, "azure", options={"auth": "entra-client"}, api_key=CLIENT)
    async with ScriptedUpstream() as tokens:
        bench.runtime.transport._authority = tokens.url
        tokens.answers = [Answer([b'{"error":"invalid_client"}'], 401), token("tok-1"), token("tok-2")]
        upstream.answers.append(answer())
        refused = await bench.chat(PUBLIC_MODEL, stream=False)
        assert (refused.status, refused.json["error"]["code"]) == (502, "upstream_unauthorized")
        assert (upstream.requests, bench.record(refused).cost_nanos) == ([], 0)
        kept = bench.runtime.transport._short_lived._kept
        next(iter(kept.values())).again_at = 0.0
        calls = await asyncio.gather(*(bench.chat(PUBLIC_MODEL, stream=False) for _ in range(3)))
        assert [call.status for call in calls] == [200] * 3
        assert {sent.headers["authorization"] for sent in upstream.requests} == {"Bearer tok-1"}
        assert not any("api-key" in sent.headers for sent in upstream.requests)
        assert [sent.target for sent in tokens.requests] == ["/acme.onmicrosoft.com/oauth2/v2.0/token"] * 2
        assert parse_qs(tokens.requests[0].body.decode()) == {
            "grant_type": ["client_credentials"],
            "client_id": ["11111111-2222"],
            "client_secret": [SECRET],
            "scope": ["https://cognitiveservices.azure.com/.default"],
        }
        upstream.offer(bench, "azure", options={"auth": "entra-client"}, api_key=CLIENT.replace("hush", "new"))
        assert (await bench.chat(PUBLIC_MODEL, stream=False)).status == 200
        assert upstream.requests[-1].headers["authorization"] == "Bearer tok-2"


@pytest.mark.asyncio
async def test_no_refusal_repeats_a_secret_or_what_was_got_with_it(bench: Bench, upstream: ScriptedUpstream) -> None:
    upstream.offer(bench, "azure", options={"auth": "entra-client"}, api_key=CLIENT)
    async with ScriptedUpstream() as tokens:
        bench.runtime.transport._authority = tokens.url
        tokens.answers = [token("tok-1")]
        told = f"No {SECRET}, 11111111-2222:{SECRET} or tok-1."
        upstream.answers.append(Answer([orjson.dumps({"error": {"message": told}})], 400))
        refused = await bench.chat(PUBLIC_MODEL, stream=False)
        assert (refused.status, refused.json["error"]["message"]) == (400, "No …, …:… or ….")


@pytest.mark.asyncio
async def test_a_request_is_signed_with_the_role_that_was_assumed(
    bench: Bench, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedUpstream() as sts:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.url)
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # nobody there is asked
        sts.answer(STS.encode(), headers={"content-type": "text/xml"})
        options = {"region": "eu-central-1", "auth": "role", "role_arn": ROLE}
        upstream.offer(bench, "bedrock", options=options, api_key="AKIABASE000000000000:base-secret")
        upstream.answer(orjson.dumps(WHOLE))
        for _ in range(2):
            assert (await bench.chat(PUBLIC_MODEL, stream=False)).status == 200
        verify(upstream.requests[0], region="eu-central-1")
        assert upstream.requests[1].headers["x-amz-security-token"] == TOKEN
        assert parse_qs(sts.request.body.decode())["RoleArn"] == [ROLE]
        assert "AKIABASE000000000000/" in sts.request.headers["authorization"]
        sts.answers = [Answer([DENIED.encode()], 403, {"content-type": "text/xml"})]
        with pytest.raises(NoCredential, match="AccessDenied") as failure:
            await role_credential(Source("aws", "AKIABASE000000000000:base-secret", "eu-central-1", ROLE))
        assert failure.value.is_refused


@pytest.mark.asyncio
async def test_a_machine_has_a_role_or_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name, value in {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    ambient = Source("aws", "", "eu-central-1")
    with pytest.raises(NoCredential, match="no role"):
        await role_credential(ambient)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAMACHINE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "machine-secret")
    assert (await role_credential(ambient)).credential == "AKIAMACHINE:machine-secret"


def test_no_organization_uses_the_role_of_the_operators_machine() -> None:
    options = with_defaults("bedrock", {"region": "eu-central-1", "auth": "role"})
    assert kind_of("bedrock", {}, options) == "sigv4"
    assert kind_of("bedrock", {"auth": "role"}, options) == "sigv4"
    chat = parse_chat(orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}]}))
    own = msgspec.structs.replace(TARGET, dialect="bedrock", options=options, api_key="AKID:own", credential_id="pk_1")
    request = Bedrock().chat_request(chat, offered(), own, request_id="req_1")
    assert request.credential == "AKID:own"
    operators = msgspec.structs.replace(own, credential_id="")
    assert isinstance(Bedrock().chat_request(chat, offered(), operators, request_id="req_1").credential, Source)
