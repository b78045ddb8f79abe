"""Conversations in the database: in order whoever adds, bounded, counted, and nobody else's."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from django.conf import settings
from django.db import connection

from apps.accounts.models import Organization, Project
from apps.accounts.organizations import create_organization
from apps.core.errors import ConfigurationError
from apps.responses import conversations
from apps.responses.contracts import (
    ChainTooLong,
    ConversationFull,
    ItemsThere,
    OpenedItem,
    OpenedResponse,
    ResponseOwner,
)
from apps.responses.conversations import ROW_BYTES, Conversation
from apps.responses.forgetting import erase, evict, kept_by, purge_expired
from apps.responses.keeping import find
from apps.responses.models import Conversation as ConversationRow
from apps.responses.models import ConversationItem, ResponseChain, StoredResponse

pytestmark = pytest.mark.django_db
RING = settings.ENCRYPTION_KEYS


def new_owner(name: str = "acme") -> ResponseOwner:
    organization = create_organization(name)
    return ResponseOwner(organization.id, Project.objects.get(organization=organization).id, sandbox=False)


def at(owner: ResponseOwner, name: str = "conv_a", days: int = 30) -> Conversation:
    return Conversation(owner, name, days=days, ring=RING)


def made(owner: ResponseOwner, name: str = "conv_a", items: str = "", days: int = 30) -> Conversation:
    """A conversation with an item for each letter."""
    conversation = at(owner, name, days)
    conversation.create(b"{}", some(items))
    return conversation


def some(letters: str) -> list[OpenedItem]:
    return [OpenedItem(f"msg_{letter}", f'"said {letter}"'.encode()) for letter in letters]


def names(conversation: Conversation) -> str:
    read = conversation.items()
    assert read is not None and [item.content for item in read.items] == [
        f'"said {item.id[4:]}"'.encode() for item in read.items
    ]
    return "".join(item.id[4:] for item in read.items)


def page(conversation: Conversation, limit: int = 2, *, is_ascending: bool = True, after: str = "") -> tuple[str, bool]:
    found = conversation.page(limit=limit, is_ascending=is_ascending, after=after and f"msg_{after}")
    assert found is not None
    return "".join(item.id[4:] for item in found[0]), found[1]


def rows_agree() -> bool:
    """Whether what is counted is what is there."""
    with connection.cursor() as cursor:
        cursor.execute(f"""
            SELECT items, conversation.plain_bytes, bytes, count(item), coalesce(sum(item.plain_bytes), 0),
                octet_length(conversation.sealed) + coalesce(sum(octet_length(item.sealed)), 0)
                + {ROW_BYTES} * (1 + count(item)) + (
                    SELECT coalesce(sum(octet_length(sealed)), 0) FROM responses_storedresponse stored
                    WHERE stored.chain_id = chain.id)
            FROM responses_conversation conversation JOIN responses_responsechain chain ON chain.id = chain_id
            LEFT JOIN responses_conversationitem item ON item.conversation_id = chain.id
            GROUP BY chain.id, conversation.chain_id
        """)  # noqa: S608 - a number of ours
        rows = cursor.fetchall()
    return bool(rows) and all(row[:3] == row[3:] for row in rows)


def test_items_stand_in_the_order_in_which_they_were_added_and_are_counted() -> None:
    conversation = made(new_owner(), items="ab")
    assert conversation.append(some("cd"), given=())
    assert names(conversation) == "abcd" and rows_agree()
    assert conversation.delete_item("msg_b") is not None and conversation.delete_item("msg_b") is None
    assert conversation.append(some("e"), given=()) and names(conversation) == "acde" and rows_agree()
    read = conversation.set_metadata(b'{"much": "longer"}')
    assert read is not None and rows_agree()
    assert conversation.read() == read and read.metadata == b'{"much": "longer"}'
    item = conversation.item("msg_c")
    assert item is not None and item.content == b'"said c"' and conversation.item("msg_b") is None


def test_it_is_listed_in_pages_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    conversation = made(new_owner(), items="abcde")
    assert [page(conversation), page(conversation, after="b"), page(conversation, after="d")] == [
        ("ab", True), ("cd", True), ("e", False),
    ]  # fmt: skip
    assert page(conversation, is_ascending=False) == ("ed", True)
    assert page(conversation, 3, is_ascending=False, after="d") == ("cba", False)
    assert page(conversation, after="e") == ("", False) and page(conversation, 5) == ("abcde", False)
    with pytest.raises(KeyError):
        page(conversation, after="x")
    monkeypatch.setattr(conversations, "MAX_BYTES", 17)  # two items have 16
    assert page(conversation, 5) == ("ab", True) and page(conversation, 5, after="b") == ("cd", True)
    monkeypatch.setattr(conversations, "MAX_BYTES", 1)
    assert page(conversation, 5, after="d") == ("e", False)


def test_what_is_added_twice_is_there_once() -> None:
    owner = new_owner()
    conversation = made(owner, items="ab")
    for _ in range(2):  # as by a connection that broke after the commit
        conversation.create(b"{}", some("ab"))
        conversation.keep(some("cd"), None)
    assert names(conversation) == "abcd" and rows_agree()
    with pytest.raises(ItemsThere):
        conversation.append(some("ed"), given=["msg_d"])
    assert names(conversation) == "abcd" and rows_agree()


def test_a_turn_and_its_response_are_kept_both_or_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = new_owner()
    conversation = made(owner)
    monkeypatch.setattr(conversations, "keep", _broken)
    with pytest.raises(ZeroDivisionError):
        conversation.keep(some("a"), OpenedResponse("resp_1", "conv_a", b"turn"))
    assert names(conversation) == "" and rows_agree()
    monkeypatch.undo()
    assert conversation.delete()
    assert conversation.keep(some("a"), OpenedResponse("resp_1", "conv_a", b"turn")) is None
    assert not StoredResponse.objects.exists() and not ResponseChain.objects.exists()


def _broken(*_: object, **__: object) -> int:
    raise ZeroDivisionError


def test_nobody_else_finds_it() -> None:
    owner = new_owner()
    other, sibling = new_owner("other"), Project.objects.create(organization_id=owner.organization_id, name="b")
    made(owner, items="a")
    for stranger in (
        other,
        ResponseOwner(other.organization_id, owner.project_id, sandbox=False),
        ResponseOwner(owner.organization_id, sibling.id, sandbox=False),
        ResponseOwner(owner.organization_id, owner.project_id, sandbox=True),
    ):
        theirs = at(stranger)
        assert theirs.read() is theirs.items() is theirs.page(limit=9, is_ascending=True, after="") is None
        assert theirs.item("msg_a") is theirs.delete_item("msg_a") is theirs.set_metadata(b"x") is None
        assert theirs.append(some("b"), given=()) is theirs.keep(some("b"), None) is None
        assert not theirs.delete()
        with pytest.raises(RuntimeError):
            theirs.create(b"{}", [])
    assert names(at(owner)) == "a" and rows_agree()
    ResponseChain.objects.update(organization_id=other.organization_id, project_id=other.project_id)
    for moved in (at(other).read, at(other).items, lambda: at(other).item("msg_a")):
        with pytest.raises(ConfigurationError):  # a row that came to another owner is not readable for that
            moved()


def test_a_row_is_readable_only_where_it_was_put() -> None:
    owner = new_owner()
    made(owner, items="ab")
    sealed = dict(ConversationItem.objects.values_list("item_id", "sealed"))
    assert b"said" not in bytes(sealed["msg_a"])
    ConversationItem.objects.filter(item_id="msg_b").update(sealed=sealed["msg_a"])
    with pytest.raises(ConfigurationError):
        at(owner).item("msg_b")


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    conversation = made(new_owner(), items="ab")
    monkeypatch.setattr(conversations, "MAX_ITEMS", 3)
    with pytest.raises(ConversationFull):
        conversation.append(some("cd"), given=())
    conversation.keep(some("cd"), None)  # an answer is never lost for that, and no other begins
    with pytest.raises(ChainTooLong):
        conversation.items()
    read = conversation.items(end=3)
    assert read is not None and len(read.items) == 3
    assert page(conversation, 9) == ("abcd", False) and conversation.delete_item("msg_a") and names(conversation)
    monkeypatch.setattr(conversations, "MAX_BYTES", 23)
    with pytest.raises(ChainTooLong):
        conversation.items()
    with pytest.raises(ConversationFull):
        conversation.append([], given=())


def test_it_is_over_after_a_time_of_rest_and_counts_towards_the_room() -> None:
    owner = new_owner()
    old, used = made(owner, "conv_old", "a"), made(owner, "conv_used", "a")
    soon = datetime.now(UTC) + timedelta(days=1)
    ResponseChain.objects.update(expires_at=soon)
    used.append(some("b"), given=())
    kept = kept_by(owner.organization_id)
    assert kept[:2] == (0, 2) and kept.bytes > 0 and rows_agree()
    assert evict(owner.organization_id, kept.bytes - 1) == 1
    assert old.read() is None and names(used) == "ab"
    ResponseChain.objects.update(expires_at=datetime.now(UTC) - timedelta(days=1))
    assert used.read() is used.append(some("c"), given=()) is None and not used.delete()
    assert purge_expired() == 1 and not ConversationItem.objects.exists() and not ConversationRow.objects.exists()


def test_it_goes_with_all_that_hangs_on_it() -> None:
    owner, other = new_owner(), new_owner("other")
    conversation, others = made(owner, items="ab"), made(other, "conv_b", "a")
    conversation.keep(some("c"), OpenedResponse("resp_1", "conv_a", b"turn"))
    assert conversation.delete() and not conversation.delete()
    assert find(owner, ["resp_1"], most_bytes=99, ring=RING) == {} and not StoredResponse.objects.exists()
    made(owner, items="ab")
    assert erase(owner.organization_id) == (0, 1) and kept_by(owner.organization_id) == (0, 0, 0)
    assert names(others) == "a"
    Project.objects.get(id=other.project_id).delete()
    made(owner, items="a")
    Project.objects.filter(id=owner.project_id).delete()
    Organization.objects.get(id=owner.organization_id).delete()
    assert not ConversationItem.objects.exists() and not ResponseChain.objects.exists()


@pytest.fixture
def committed(transactional_db: None) -> ResponseOwner:
    return new_owner()


def test_additions_at_once_lose_nothing_and_stay_together(committed: ResponseOwner) -> None:
    conversation = made(committed)
    begin = threading.Barrier(4)

    def add(letter: str) -> None:
        begin.wait(30)
        for number in range(5):
            items = [OpenedItem(f"msg_{letter}{number}{place}", b"1") for place in range(3)]
            at(committed).keep(items, OpenedResponse(f"resp_{letter}{number}", "conv_a", b"turn"))
        connection.close()

    threads = [threading.Thread(target=add, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    read = conversation.items()
    assert read is not None and len(read.items) == read.end == 60 and rows_agree()
    ids = [item.id[4:] for item in read.items]
    turns = [ids[start : start + 3] for start in range(0, 60, 3)]
    assert all([name[:2] for name in turn] == [turn[0][:2]] * 3 for turn in turns)
    assert [[name[2] for name in turn] for turn in turns] == [["0", "1", "2"]] * 20
    for letter in "abcd":
        assert [turn[0][1] for turn in turns if turn[0][0] == letter] == list("01234")
    assert StoredResponse.objects.count() == 20


def test_what_is_empty_takes_room_as_well() -> None:
    owner = new_owner()
    conversation = Conversation(owner, "conv_" + "0" * 32, days=30, ring=RING)
    assert conversation.create(b"{}", []) == kept_by(owner.organization_id).bytes > ROW_BYTES
    added = conversation.append(some("a"), given=())
    assert added is not None and added > ROW_BYTES and rows_agree()
