"""Stored responses go: when their time is over, the oldest first when there are too many, or all of an owner's."""

from datetime import UTC, datetime, timedelta

import pytest
from django.conf import settings
from django.db import connection

from apps.accounts.models import Organization, Project
from apps.accounts.organizations import create_organization
from apps.core.errors import ConfigurationError
from apps.responses import forgetting
from apps.responses.contracts import ChainTooLong, OpenedResponse, ResponseOwner
from apps.responses.forgetting import erase, evict, evict_all, kept_by, purge_expired
from apps.responses.keeping import delete, find, keep, read_chain
from apps.responses.models import ResponseChain, StoredResponse

pytestmark = pytest.mark.django_db
RING = settings.ENCRYPTION_KEYS
CONTENT = b'{"text": "' + bytes(range(64, 91)) * 8 + b'"}'


def new_owner(name: str = "acme") -> ResponseOwner:
    organization = create_organization(name)
    return ResponseOwner(organization.id, Project.objects.get(organization=organization).id, sandbox=False)


def turns(owner: ResponseOwner, name: str, count: int = 1, *, days: int = 30) -> list[str]:
    """A conversation of so many turns."""
    names = [f"resp_{name}{number}" for number in range(count)]
    for previous, each in zip(["", *names], names, strict=False):
        keep(owner, OpenedResponse(each, names[0], CONTENT), previous_id=previous, days=days, ring=RING)
    return names


def test_a_conversation_is_kept_until_the_last_turn_of_it_is_over() -> None:
    owner = new_owner()
    old, young = turns(owner, "old", 3), turns(owner, "young", 2)
    past = datetime.now(UTC) - timedelta(seconds=1)
    ResponseChain.objects.filter(id__in=(old[0], young[0])).update(expires_at=past)
    assert find(owner, old, most_bytes=0, ring=RING) == {} and not delete(
        owner, old[0]
    )  # over, though it is still there
    keep(owner, OpenedResponse("resp_new", young[0], CONTENT), previous_id=young[1], days=30, ring=RING)
    assert purge_expired() == 1
    assert set(StoredResponse.objects.values_list("id", flat=True)) == {*young, "resp_new"}
    found, is_whole = read_chain(owner, "resp_new", most_bytes=1 << 20, ring=RING)
    assert [turn.id for turn in found] == [*young, "resp_new"] and is_whole
    assert {turn.content for turn in found} == {CONTENT}


def test_purging_is_done_in_bounded_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = new_owner()
    for number in range(5):
        turns(owner, f"a{number}", days=-1)
    monkeypatch.setattr(forgetting, "BATCH", 2)
    monkeypatch.setattr(forgetting, "MAX_BATCHES", 2)
    assert [purge_expired(), purge_expired(), purge_expired()] == [4, 1, 0]


def test_beyond_its_room_an_organization_loses_what_rested_longest() -> None:
    owner, other = new_owner(), new_owner("other")
    for days, name in ((1, "oldest"), (3, "youngest"), (2, "middle")):
        turns(owner, name, 2, days=days)
    turns(other, "others")
    size = kept_by(owner.organization_id).bytes // 3
    assert evict(owner.organization_id, 3 * size) == 0
    assert evict(owner.organization_id, 2 * size) == 1
    assert set(ResponseChain.objects.values_list("id", flat=True)) == {"resp_youngest0", "resp_middle0", "resp_others0"}
    assert evict_all(size) == 1
    assert kept_by(owner.organization_id) == (2, 0, size) and kept_by(other.organization_id).responses == 1


def test_the_room_counts_what_is_deleted() -> None:
    owner = new_owner()
    first, second = turns(owner, "a", 2)
    size = kept_by(owner.organization_id).bytes
    with connection.cursor() as cursor:
        cursor.execute("SELECT sum(octet_length(sealed)) FROM responses_storedresponse")
        assert cursor.fetchone() == (size,)
    assert delete(owner, first) and not delete(owner, first)
    assert kept_by(owner.organization_id) == (1, 0, size // 2)
    found, is_whole = read_chain(owner, second, most_bytes=1 << 20, ring=RING)
    assert [turn.id for turn in found] == [second] and not is_whole


def test_an_organization_deletes_all_of_its_own_and_nothing_else() -> None:
    owner, other = new_owner(), new_owner("other")
    turns(owner, "a", 2)
    turns(other, "b")
    assert erase(owner.organization_id) == (2, 0)
    assert kept_by(owner.organization_id) == (0, 0, 0) and not ResponseChain.objects.for_organization(
        owner.organization_id
    )
    assert kept_by(other.organization_id).responses == 1


def test_they_go_with_their_project_and_their_organization() -> None:
    owner = new_owner()
    turns(owner, "a", 2)
    Project.objects.get(id=owner.project_id).delete()
    assert StoredResponse.objects.count() == ResponseChain.objects.count() == 0
    other = new_owner("other")
    turns(other, "b")
    Project.objects.filter(id=other.project_id).delete()
    Organization.objects.get(id=other.organization_id).delete()
    assert StoredResponse.objects.count() == ResponseChain.objects.count() == 0


def test_a_conversation_that_is_too_long_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = new_owner()
    last = turns(owner, "a", 4)[-1]
    assert len(read_chain(owner, last, most_bytes=4 * len(CONTENT), ring=RING)[0]) == 4
    with pytest.raises(ChainTooLong):
        read_chain(owner, last, most_bytes=3 * len(CONTENT), ring=RING)
    several = [last, *turns(owner, "b"), "resp_no"]
    assert len(find(owner, several, most_bytes=2 * len(CONTENT), ring=RING)) == 2
    with pytest.raises(ChainTooLong):
        find(owner, several, most_bytes=2 * len(CONTENT) - 1, ring=RING)
    monkeypatch.setattr("apps.responses.keeping.MAX_TURNS", 3)
    with pytest.raises(ChainTooLong):
        read_chain(owner, last, most_bytes=1 << 20, ring=RING)


def test_an_older_key_of_the_ring_still_opens_and_a_newer_one_seals() -> None:
    owner = new_owner()
    (name,) = turns(owner, "a")
    rotated = {"newer": b"n" * 32, **RING}
    assert find(owner, [name], most_bytes=0, ring=rotated)[name].content == CONTENT
    keep(owner, OpenedResponse("resp_b", "resp_b", CONTENT), previous_id="", days=30, ring=rotated)
    assert bytes(StoredResponse.objects.get(id="resp_b").sealed).startswith(b"newer$")
    with pytest.raises(ConfigurationError):
        find(owner, ["resp_b"], most_bytes=0, ring=RING)
