"""The shape of keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.keys.keyformat import KEY_LENGTH, PREFIX, is_well_formed, new_key


def test_a_new_key_has_35_characters_and_is_well_formed() -> None:
    key = new_key()
    assert len(key) == KEY_LENGTH == 35
    assert key.startswith(PREFIX) and is_well_formed(key)


def test_one_changed_character_is_noticed_at_the_door() -> None:
    key = new_key()
    for position in range(len(PREFIX), KEY_LENGTH):
        other = "0" if key[position] != "0" else "1"
        assert not is_well_formed(key[:position] + other + key[position + 1 :])


@given(st.text(max_size=40))
def test_other_text_is_no_key(text: str) -> None:
    assert not is_well_formed(text)
    assert not is_well_formed(PREFIX + text)


def test_a_sandbox_key_has_the_same_shape_and_starts_with_ak_test() -> None:
    keys = {new_key(sandbox=True) for _ in range(50)}
    assert len(keys) == 50
    assert all(key.startswith("ak_test") and is_well_formed(key) and len(key) == KEY_LENGTH for key in keys)


def test_no_live_key_looks_like_a_sandbox_key(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["test" + "a" * 22, "testb" + "c" * 21, "live" + "d" * 22])
    monkeypatch.setattr("apps.keys.keyformat._random", lambda length: next(drawn))
    assert new_key().startswith("ak_lived")
