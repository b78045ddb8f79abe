"""What of a request of the Responses API goes to upstreams that speak it and does not stand in the chat that was made
of it. Pure."""

from typing import Any, Final, NamedTuple

from apps.gateway.dialects.media_addresses import check_addresses_within
from apps.gateway.dialects.responses.items import stands_in_chat
from apps.gateway.dialects.vendor_json import write_json

Item = dict[str, Any]
_IN_CHAT: Final = ("function", "custom", "namespace")
"""Kinds of tools that the chat has, too."""


class BesideChat(NamedTuple):
    """How much it is."""

    text_bytes: int = 0
    images: int = 0
    tools: bool = False
    """Whether there are tools in it."""


NOTHING: Final = BesideChat()


def beside_chat(told: Item) -> BesideChat:
    """Calls of tools that are no functions, and what came of them; such tools, and those that a choice takes out of the
    chat. Items of stored responses count: they were never in the body. Raises GatewayError (400) for an address in one
    of them that is not of the public internet."""
    given = told.get("input")
    items = [item for item in given if not stands_in_chat(item)] if isinstance(given, list) else []
    check_addresses_within("input", items)
    screenshots = [_screenshot(item) for item in items]
    tools: list[Item] = told.get("tools") or []
    choice = told.get("tool_choice")
    if not (isinstance(choice, dict) and choice.get("type") == "allowed_tools"):
        tools = [tool for tool in tools if tool.get("type") not in _IN_CHAT]
    if not items and not tools:
        return NOTHING
    check_addresses_within("tools", tools)
    size = len(write_json([*items, *tools])) - sum(map(len, screenshots))
    return BesideChat(size, sum(map(bool, screenshots)), bool(tools))


def _screenshot(item: Item) -> str:
    """The picture of an item, which has a bound of its own in tokens; "" for an item without one."""
    output = item.get("output")
    image = output.get("image_url") if isinstance(output, dict) else None
    return image if isinstance(image, str) else ""
