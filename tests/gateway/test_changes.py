"""What a gateway does when it hears of a change."""

from typing import Any

import pytest

from apps.gateway.changes import _apply


class Listener:
    """Stands for the lookup and the catalog of a gateway: notes what it is told to do."""

    def __init__(self) -> None:
        self.acts: list[str] = []

    def forget(self, digest: str) -> None:
        self.acts.append(f"forget {digest}")

    def distrust(self, organization_id: str = "") -> None:
        self.acts.append(f"distrust {organization_id}".strip())

    def note_change(self) -> None:
        self.acts.append("note_change")


@pytest.mark.parametrize(
    ("message", "acts"),
    [
        ("keys", ["distrust"]),
        ("keys:org_1", ["distrust org_1"]),
        ("key:t1$00", ["forget t1$00"]),
        ("catalog", ["note_change"]),
        ("weather", []),
    ],
)
def test_a_gateway_knows_the_announcements(message: str, acts: list[str]) -> None:
    gateway: Any = Listener()
    _apply(message, gateway, gateway)
    assert gateway.acts == acts
