"""Names: one plain line, wherever they are made."""

import pytest
from click.testing import CliRunner

from apps.accounts.models import Organization
from apps.accounts.organizations import create_organization, default_project
from apps.core.errors import InvalidInput
from apps.core.name_fields import REFUSAL
from apps.core.names import check_name, is_plain, one_line
from apps.keys.issuing import create_key
from apps.keys.models import ApiKey
from apps.portal.alert_forms import EndpointForm
from apps.portal.forms import KeyForm, OrganizationForm, ProjectForm
from crun.cli.keys import key
from crun.cli.organizations import org

BAD = [
    "a\nb",
    "a\rb",
    "a\tb",
    "a\x00b",
    "a\x1b[31mb",
    "a\x7fb",
    "a\x85b",
    "a\u2028b",
    "a\u2029b",
    "a\u202eb",
    "a\u2066b",
]
GOOD = ["Backend", "Größe & Söhne", "日本語", "می‌خواهم", "👩‍💻 team", "a  b", "O’Neill (test) <1>"]


@pytest.mark.parametrize("name", BAD)
def test_these_are_no_names(name: str) -> None:
    assert not is_plain(name)
    with pytest.raises(InvalidInput, match="one line"):
        check_name(name, of="a key")


@pytest.mark.parametrize("name", GOOD)
def test_these_are_names(name: str) -> None:
    assert check_name(f" {name} ", of="a key") == name


@pytest.mark.parametrize("name", BAD)
def test_what_is_made_one_line_is_plain(name: str) -> None:
    assert is_plain(one_line(name, 100))
    assert one_line("abc def", 5) == "abc…"


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["a\nb", "a\u202eb"])
def test_nobody_makes_such_a_name(name: str) -> None:
    organization = create_organization("Acme")
    project = default_project(organization)
    with pytest.raises(InvalidInput):
        create_organization(name)
    with pytest.raises(InvalidInput):
        create_key(project, name=name)
    forms = [
        (OrganizationForm({"name": name}), "name"),
        (ProjectForm(organization, {"name": name}), "name"),
        (KeyForm(organization, {"name": name, "project": project.id}), "name"),
        (EndpointForm({"description": name}), "description"),
    ]
    assert [form.errors[field] for form, field in forms] == [[REFUSAL]] * len(forms)
    for model in (Organization, ApiKey):
        field = model._meta.get_field("name")
        with pytest.raises(Exception, match="one line"):
            field.clean(name, None)


@pytest.mark.django_db
def test_the_shell_refuses_them_too() -> None:
    create_organization("Acme", slug="acme")
    made = [(org, ["create", "a\nb"]), (key, ["create", "--organization", "acme", "--name", "a\nb"])]
    for command, arguments in made:
        assert isinstance(CliRunner().invoke(command, arguments).exception, InvalidInput)
    assert not ApiKey.objects.exists()
    assert Organization.objects.count() == 1
