"""Organizations with provider keys of their own at the bench, and an upstream that answers by the key it is sent."""

from dataclasses import dataclass, field
from typing import Any

import msgspec
import orjson
from django.conf import settings

from apps.catalog.contracts import Price
from apps.core.crypto import keyed_digests, seal
from apps.keys.contracts import KeyGrant
from apps.keys.keyformat import new_key
from apps.keys.lookup import KeyLookup
from apps.policies.contracts import Policy
from apps.policies.own_credentials import OwnCredential, binding
from tests.factories import PRICE, TARGET, offered, snapshot
from tests.gateway.conftest import UPSTREAM_KEY, Bench, Call
from tests.upstream.scripted import Answer, Received, ScriptedUpstream

MODEL = "shared-model"
CHAT = "/api/v1/chat/completions"


def answer(text: str = "one two three", *, prompt: int = 20, completion: int = 40) -> Answer:
    """A chat completion that says what it used."""
    said = {
        "id": "x", "object": "chat.completion", "created": 1, "model": "up",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
    }  # fmt: skip
    return Answer([orjson.dumps(said)], headers={"content-type": "application/json"})


def refusal(status: int, message: str = "no", **headers: str) -> Answer:
    return Answer(
        [orjson.dumps({"error": {"message": message}})], status, {"content-type": "application/json", **headers}
    )


class KeyedUpstream(ScriptedUpstream):
    """Answers by the credential of a request: what stands in `by_key`, else a chat completion."""

    def __init__(self) -> None:
        super().__init__()
        self.by_key: dict[str, Answer] = {}

    def choose(self, received: Received) -> Answer:
        return self.by_key.get(bearer(received)) or answer()

    @property
    def keys(self) -> list[str]:
        """The credentials of all requests, in their order."""
        return [bearer(received) for received in self.requests]


def bearer(received: Received) -> str:
    return received.headers["authorization"].removeprefix("Bearer ")


def own_key(
    secret: str, *, owner: str = "org_1", provider: str = "local", base_url: str = "", name: str = "", **terms: Any
) -> OwnCredential:
    """A sealed key as a grant has it; its id is `name`, or follows from the secret."""
    name = name or f"cred_{keyed_digests(secret, settings.KEY_PEPPERS)[0][-12:]}"
    bound_to = binding(name, owner, provider_id=provider, base_url=base_url)
    sealed = seal(secret, bound_to=bound_to, ring=settings.ENCRYPTION_KEYS)
    return OwnCredential(id=name, organization_id=owner, provider=provider, sealed=sealed, **terms)


@dataclass
class Tenants:
    """The bench with a model whose routes lead to one upstream, under any number of providers' names."""

    bench: Bench
    upstream: KeyedUpstream
    grants: dict[str, KeyGrant] = field(default_factory=dict)
    """By API key."""

    def offer(self, *providers: str, price: Price = PRICE, **changes: Any) -> None:
        """MODEL, with a route to each provider: that of the operator's credential `sk-PROVIDER`."""
        targets = tuple(
            msgspec.structs.replace(
                TARGET, provider=name, base_url=self.upstream.url, api_key=self.operators(name), weight=1
            )
            for name in providers or ("local",)
        )
        model = offered(id=MODEL, targets=targets, prices=(price,), **changes)
        self.bench.models[MODEL] = model
        self.bench.runtime.catalog.snapshot = snapshot(*self.bench.models.values())

    @staticmethod
    def operators(provider: str) -> str:
        """The operator's credential at a provider."""
        return UPSTREAM_KEY if provider == "local" else f"sk-operator-{provider}"

    def own(self, secret: str, **terms: Any) -> OwnCredential:
        return own_key(secret, base_url=self.upstream.url, **terms)

    def admit(self, *credentials: OwnCredential, owner: str = "org_1", **changes: Any) -> str:
        """An API key of the organization, with these provider keys; returns it."""
        key = new_key()
        policy = Policy(credentials=credentials) if credentials else None
        self.grants[key] = msgspec.structs.replace(
            self.bench.grant, key_id=f"key_{len(self.grants)}", organization_id=owner, policy=policy,
            digest=keyed_digests(key, settings.KEY_PEPPERS)[0], **changes,
        )  # fmt: skip
        by_digest = {grant.digest: grant for grant in self.grants.values()}

        async def read(digests: Any) -> KeyGrant | None:
            return next((by_digest[digest] for digest in digests if digest in by_digest), None)

        self.bench.runtime.keys = KeyLookup(read, settings.KEY_PEPPERS)
        self.bench.key = key
        return key

    async def ask(self, *, key: str = "", model: str = MODEL, is_cached: bool = False, **fields: Any) -> Call:
        body = {"model": model, "messages": [{"role": "user", "content": "one two three"}], **fields}
        headers = {"authorization": f"Bearer {key or self.bench.key}", "content-type": "application/json"}
        if is_cached:
            headers["x-crun-cache"] = "on"
        return await self.bench.call(CHAT, body, headers=headers)
