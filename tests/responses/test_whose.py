"""Whose stored responses are: each look-up asks for organization, project and side, and so does each seal."""

from dataclasses import replace

import pytest
from django.conf import settings

from apps.core.errors import ConfigurationError
from apps.responses.contracts import ResponseOwner
from apps.responses.keeping import delete, find, read_chain
from apps.responses.sealing import opened, sealed
from tests.responses.test_forgetting import new_owner, turns

RING = settings.ENCRYPTION_KEYS
OWNER = ResponseOwner("org_1", "proj_1", sandbox=False)
OTHERS = [
    replace(OWNER, organization_id="org_2"),
    replace(OWNER, project_id="proj_2"),
    replace(OWNER, sandbox=True),
]


@pytest.mark.parametrize("field", ["organization_id", "project_id", "sandbox"])
@pytest.mark.django_db
def test_with_one_of_the_three_wrong_there_is_no_such_response(field: str) -> None:
    """No look-up leaves it to the seal to tell whose a row is."""
    owner = new_owner()
    names = turns(owner, "a", 2)
    changed = {field: True} if field == "sandbox" else {field: getattr(new_owner("other"), field)}
    other = replace(owner, **changed)  # type: ignore[arg-type]  # one field, of its own type
    assert find(other, names, most_bytes=1 << 20, ring=RING) == {}
    assert read_chain(other, names[-1], most_bytes=1 << 20, ring=RING) == ([], False)
    assert not delete(other, names[-1])
    assert find(owner, names, most_bytes=1 << 20, ring=RING).keys() == set(names)


@pytest.mark.parametrize(("owner", "name"), [*((other, "resp_1") for other in OTHERS), (OWNER, "resp_2")])
def test_a_sealed_response_opens_for_its_owner_under_its_own_id_alone(owner: ResponseOwner, name: str) -> None:
    content = sealed(b"said", owner=OWNER, name="resp_1", ring=RING)
    assert opened(content, owner=OWNER, name="resp_1", ring=RING) == b"said"
    with pytest.raises(ConfigurationError):
        opened(content, owner=owner, name=name, ring=RING)
