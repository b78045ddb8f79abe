"""Sealed credentials and keyed digests."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.crypto import keyed_digests, parse_key_ring, seal, seal_bytes, unseal, unseal_bytes
from apps.core.errors import ConfigurationError

OLD = {"e1": b"1" * 32}
NEW = {"e2": b"2" * 32, **OLD}


def test_a_sealed_credential_opens_with_its_binding() -> None:
    assert unseal(seal("sk-secret", bound_to="provider:a", ring=OLD), bound_to="provider:a", ring=OLD) == "sk-secret"


def test_a_credential_moved_to_another_row_does_not_open() -> None:
    sealed = seal("sk-secret", bound_to="provider:a", ring=OLD)
    with pytest.raises(ConfigurationError):
        unseal(sealed, bound_to="provider:b", ring=OLD)


def test_a_new_key_in_the_ring_still_opens_what_the_old_one_sealed() -> None:
    sealed = seal("sk-secret", bound_to="provider:a", ring=OLD)
    assert unseal(sealed, bound_to="provider:a", ring=NEW) == "sk-secret"
    assert seal("x", bound_to="b", ring=NEW).startswith("e2$")


def test_without_its_key_a_credential_stays_closed_and_the_error_names_no_secret() -> None:
    sealed = seal("sk-secret", bound_to="provider:a", ring=OLD)
    with pytest.raises(ConfigurationError) as caught:
        unseal(sealed, bound_to="provider:a", ring={"e9": b"9" * 32})
    assert "sk-secret" not in caught.value.message


@pytest.mark.parametrize("damaged", ["", "e1$", "e1$!!", "e1$AAAA", "nothing"])
def test_a_damaged_credential_is_an_error_not_a_crash(damaged: str) -> None:
    with pytest.raises(ConfigurationError):
        unseal(damaged, bound_to="provider:a", ring=OLD)


def test_digests_say_which_pepper_made_them() -> None:
    newest, older = keyed_digests("ak_x", {"p2": b"b" * 32, "p1": b"a" * 32})
    assert newest.startswith("p2$") and older.startswith("p1$")
    assert newest.partition("$")[2] != older.partition("$")[2]


@pytest.mark.parametrize("text", ["", "e1", "e1:", "e1:????", "e1:" + base64.b64encode(b"short").decode(), ":AAAA"])
def test_an_unusable_key_ring_is_refused_by_the_name_of_its_variable(text: str) -> None:
    with pytest.raises(ConfigurationError, match="CRUN_ENCRYPTION_KEYS"):
        parse_key_ring(text, variable="CRUN_ENCRYPTION_KEYS")


@given(st.binary(max_size=300), st.text(max_size=30))
def test_sealed_bytes_open_with_their_binding_in_any_later_ring(plaintext: bytes, binding: str) -> None:
    sealed = seal_bytes(plaintext, bound_to=binding, ring=OLD)
    assert unseal_bytes(sealed, bound_to=binding, ring=NEW) == plaintext
    assert len(sealed) == len(plaintext) + 3 + 12 + 16


@given(st.data())
def test_a_changed_bit_another_binding_or_a_lost_key_keep_sealed_bytes_closed(given_to_us: st.DataObject) -> None:
    sealed = bytearray(seal_bytes(b"an answer", bound_to="org_1:key", ring=OLD))
    for binding, ring in (("org_2:key", OLD), ("org_1:key", {"e1": b"9" * 32}), ("org_1:key", {"e9": b"1" * 32})):
        with pytest.raises(ConfigurationError):
            unseal_bytes(bytes(sealed), bound_to=binding, ring=ring)
    position = given_to_us.draw(st.integers(0, len(sealed) - 1))
    sealed[position] ^= 1 << given_to_us.draw(st.integers(0, 7))
    with pytest.raises(ConfigurationError):
        unseal_bytes(bytes(sealed), bound_to="org_1:key", ring=OLD)


def test_two_seals_of_the_same_bytes_differ() -> None:
    assert seal_bytes(b"x", bound_to="b", ring=OLD) != seal_bytes(b"x", bound_to="b", ring=OLD)
