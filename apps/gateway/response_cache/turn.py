"""One request's turn at the response cache: a kept answer if there is one, else the place where its answer will be."""

from collections.abc import Mapping
from typing import Any, Final

from django.conf import settings

from apps.catalog.contracts import NO_CACHE_TERMS
from apps.gateway.dialects.model_request import ModelRequest
from apps.gateway.kept.permission import forbids_keeping
from apps.gateway.response_cache.answers import CachedAnswer
from apps.gateway.response_cache.keeping import Keeping
from apps.gateway.response_cache.naming import name_of
from apps.gateway.response_cache.replaying import Hit, age_s, hit_of
from apps.gateway.response_cache.wishes import wish_of
from apps.gateway.runtime import Runtime
from apps.keys.contracts import KeyGrant

MAX_BODY_BYTES: Final = 4 << 20
"""The name of a larger body would take the event loop longer than the answer is worth."""
STATUS: Final = "x-crun-cache-status"


class Turn:
    """Made for a request that says something about the cache, or whose model does."""

    def __init__(
        self, runtime: Runtime, grant: KeyGrant, asked: ModelRequest, *, path: str, meta: Mapping[str, Any]
    ) -> None:
        """Raises GatewayError (400) for headers that make no sense."""
        self._runtime = runtime
        self._grant = grant
        self._asked = asked
        model = runtime.snapshot.models.get(asked.model)
        self._wish = wish_of(meta, NO_CACHE_TERMS if model is None else model.cache, ttl_s=settings.CACHE_TTL_S)
        self.keeping: Keeping | None = None
        """Where the answer will be kept; None when it will not."""
        self.headers = {STATUS: "BYPASS"}
        self._name = ""
        is_allowed = settings.CACHE and not forbids_keeping(grant, asked.body)
        if self._wish.keeps and is_allowed and asked.body_bytes <= MAX_BODY_BYTES:
            self._name = name_of(grant, path, asked, runtime.snapshot, ring=settings.ENCRYPTION_KEYS)
            owner = grant.organization_id
            self.keeping = Keeping(runtime.cached_answers, owner, self._name, ttl_s=self._wish.ttl_s)
            self.headers = {STATUS: "MISS" if self._wish.reads else "REFRESH"}

    async def find(self, request_id: str) -> Hit | None:
        """The kept answer, made ready for this request; `headers` tell of it. None: the upstreams must be asked."""
        if self.keeping is None or not self._wish.reads:
            return None
        answer = await self._runtime.cached_answers.find(self._grant.organization_id, self._name)
        if answer is None or self._is_too_old(answer):
            return None
        hit = hit_of(self._runtime, self._grant, self._asked, answer, request_id=request_id)
        if hit is not None:
            self.headers = {
                STATUS: "HIT",
                "age": str(age_s(answer)),
                "x-crun-cache-source-id": answer.request_id,
            }
        return hit

    def _is_too_old(self, answer: CachedAnswer) -> bool:
        most = self._wish.most_age_s
        return most is not None and age_s(answer) >= most
