"""Which key a request shows, in one header or in several."""

import pytest

from apps.gateway.errors import GatewayError
from apps.gateway.server.authentication import presented_key


@pytest.mark.parametrize(
    ("authorization", "x_api_key", "key"),
    [
        ("Bearer one", None, "one"),
        ("bearer  one ", None, "one"),
        (" Bearer one", None, "one"),
        (None, "one", "one"),
        ("Bearer one", "one", "one"),
        ("Basic other", "one", "one"),
        ("Bearer one,Bearer one", None, "one"),
        ("Bearer ", "one", "one"),
        ("Basic one, Bearer two", None, "two"),
        ("Bearer one, Basic two", None, "one"),
    ],
)
def test_one_key_is_found(authorization: str | None, x_api_key: str | None, key: str) -> None:
    assert presented_key(_meta(authorization, x_api_key)) == key


@pytest.mark.parametrize(
    ("authorization", "x_api_key", "status"),
    [
        ("Bearer one,Bearer two", None, 400),
        ("Bearer one", "two", 400),
        ("Basic sesame", None, 401),
        ("Bearer ", None, 401),
        (None, None, 401),
    ],
)
def test_no_key_and_two_keys_are_refused(authorization: str | None, x_api_key: str | None, status: int) -> None:
    with pytest.raises(GatewayError) as refused:
        presented_key(_meta(authorization, x_api_key))
    assert refused.value.kind.status == status


def _meta(authorization: str | None, x_api_key: str | None) -> dict[str, str]:
    told = {"HTTP_AUTHORIZATION": authorization, "HTTP_X_API_KEY": x_api_key}
    return {name: value for name, value in told.items() if value is not None}
