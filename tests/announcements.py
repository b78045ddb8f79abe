"""Hearing what running gateways are told."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from apps.core.redis import changes_channel, sync_client


@contextmanager
def listening() -> Iterator[Callable[[], list[str]]]:
    """Gives a function that returns the messages since its last call."""
    client = sync_client()
    subscription = client.pubsub(ignore_subscribe_messages=True)
    subscription.subscribe(changes_channel(client))
    subscription.get_message(timeout=0.1)

    def heard() -> list[str]:
        messages = []
        while (message := subscription.get_message(timeout=0.2)) is not None:
            messages.append(message["data"].decode())
        return messages

    try:
        yield heard
    finally:
        subscription.close()
        client.close()
