"""ASGI entries: `application` serves everything, `gateway` the data path alone, `web` the pages alone."""

import os
import warnings
from typing import Any, cast

from django.core.asgi import get_asgi_application
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "crun.settings")

TRUSTED_PROXIES = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1")
"""Whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed, with uvicorn's variable and default."""

# Static files come from WhiteNoise, whose iterators are synchronous; they are small and cached by browsers.
warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous iterators")

# Pages ask where a request came from. The data path never does, so crun.serve does not have uvicorn do this for all.
web: Any = ProxyHeadersMiddleware(cast(Any, get_asgi_application()), TRUSTED_PROXIES)

from apps.gateway.server.asgi import Gateway, serves  # noqa: E402 - Django must be set up before its apps are imported

gateway = Gateway()


async def application(scope: Any, receive: Any, send: Any) -> None:
    """The data path for its own paths and for the process's lifespan, Django for all other pages."""
    if scope["type"] == "lifespan" or serves(scope):
        await gateway(scope, receive, send)
    else:
        await web(scope, receive, send)
