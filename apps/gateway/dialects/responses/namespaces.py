"""Tools that a caller groups under a namespace, as functions for upstreams that know no groups. Pure.

Source: `NamespaceToolParam` and `ResponseFunctionToolCall.namespace` in the reference of OpenAI's Responses API."""

import hashlib
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from apps.gateway.errors import bad_field

MAX_NAME: Final = 64
"""Characters that OpenAI and Google allow the name of a function."""
_DIGEST: Final = 8


class Member(NamedTuple):
    """A tool by its own name, and the namespace it stands in."""

    namespace: str
    name: str


def flat_name(namespace: str, name: str) -> str:
    """The name of a tool of a namespace among functions: always the same, so that earlier calls have it too."""
    flat = f"{namespace}__{name}"
    if len(flat) <= MAX_NAME:
        return flat
    return f"{flat[: MAX_NAME - _DIGEST - 1]}_{hashlib.sha256(flat.encode()).hexdigest()[:_DIGEST]}"


def members_of(tool: dict[str, Any], place: str) -> Iterator[tuple[Member, Any]]:
    """The tools of a namespace. What it is for is told with the first of them.

    Raises GatewayError (400) naming the place of what is wrong."""
    name, tools, purpose = tool.get("name"), tool.get("tools"), tool.get("description")
    if type(name) is not str or not name:
        raise bad_field(f"{place}.name", "A namespace must have a name, which is a string.")
    if type(tools) is not list:
        raise bad_field(f"{place}.tools", "A namespace must have a list of tools.")
    for index, inner in enumerate(tools):
        if type(inner) is not dict or type(inner.get("name")) is not str or not inner["name"]:
            raise bad_field(f"{place}.tools[{index}]", "A tool of a namespace must be an object with a name.")
        described = inner
        if index == 0 and type(purpose) is str and purpose:
            described = {**inner, "description": f"{name}: {purpose}\n\n{inner.get('description') or ''}".strip()}
        yield Member(name, inner["name"]), described
