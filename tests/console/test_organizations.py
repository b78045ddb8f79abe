"""Organizations and projects in the console."""

from datetime import timedelta

from django.contrib.admin.utils import quote
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from apps.accounts.models import Membership, Organization, Project
from apps.accounts.organizations import create_organization, default_project
from apps.console.spending import month_start
from apps.keys.issuing import create_key, revoke_key
from apps.policies.data_rules import DataRules
from apps.policies.reading import read_data_rules
from tests.console.cast import Rows, add_rollup, limit_fields

LIST = "/console/accounts/organization/"
ADD = "/console/accounts/organization/add/"


def test_a_new_organization_has_a_project_and_its_owner(console: Client, rows: Rows) -> None:
    answer = console.post(ADD, {"name": "Blue Heron", "slug": "blue-heron", "owner": "Ada@ACME.example"})
    organization = Organization.objects.get(slug="blue-heron")
    assert answer.status_code == 302
    assert default_project(organization).name == "Default"
    member = Membership.objects.get(organization=organization)
    assert (member.user, member.role) == (rows.customer, "owner")


def test_an_owner_without_an_account_and_a_slug_in_use_are_refused(console: Client, rows: Rows) -> None:
    before = Organization.objects.count()
    answer = console.post(ADD, {"name": "Acme Two", "slug": "acme", "owner": "nobody@acme.example"})
    assert set(answer.context["adminform"].form.errors) == {"slug", "owner"}
    assert Organization.objects.count() == before


def test_the_name_changes_and_the_slug_stays(console: Client, rows: Rows) -> None:
    page = reverse("console:accounts_organization_change", args=[quote(rows.organization.pk)])
    members = {
        "memberships-TOTAL_FORMS": "1",
        "memberships-INITIAL_FORMS": "1",
        "memberships-0-id": str(Membership.objects.get().pk),
        "memberships-0-organization": rows.organization.pk,
        "memberships-0-user": str(rows.customer.pk),
        "memberships-0-role": "finance",
        "projects-TOTAL_FORMS": "0",
        "projects-INITIAL_FORMS": "0",
        "data_policy-TOTAL_FORMS": "1",
        "data_policy-INITIAL_FORMS": "0",
        "data_policy-0-organization": rows.organization.pk,
        "data_policy-0-regions": "eu,us",
        "data_policy-0-denied_providers": "",
        "data_policy-0-requires_zero_retention": "on",
    }
    answer = console.post(page, {"name": "Acme Incorporated", "slug": "stolen", **limit_fields(), **members})
    assert answer.status_code == 302
    rows.organization.refresh_from_db()
    assert (rows.organization.name, rows.organization.slug) == ("Acme Incorporated", "acme")
    assert Membership.objects.get().role == "finance"
    assert read_data_rules(rows.organization.pk) == DataRules(regions=("eu", "us"), requires_zero_retention=True)


def test_the_list_counts_what_each_organization_has(console: Client, rows: Rows) -> None:
    other = create_organization("Other")
    revoke_key(create_key(rows.project, name="Revoked").key)
    add_rollup(rows.key, hour=month_start(), cost_nanos=2_000_000_001)
    add_rollup(rows.key, hour=timezone.now().replace(minute=0, second=0, microsecond=0), cost_nanos=1, model="second")
    add_rollup(rows.key, hour=month_start() - timedelta(hours=1), cost_nanos=999)
    found = {row.pk: row for row in console.get(LIST).context["cl"].result_list}
    acme, empty = found[rows.organization.pk], found[other.pk]
    assert (acme.projects_number, acme.members_number, acme.keys_number) == (1, 1, 1)
    assert acme.spent_nanos == 2_000_000_002
    assert (empty.projects_number, empty.members_number, empty.keys_number, empty.spent_nanos) == (1, 0, 0, 0)
    assert "$2.000000002" in console.get(LIST).content.decode()


def test_a_project_is_added_to_the_organization_one_came_from(console: Client, rows: Rows) -> None:
    button = reverse("console:accounts_organization_add_project", args=[quote(rows.organization.pk)])
    form = console.get(button, follow=True)
    assert form.context["adminform"].form.initial["organization"] == rows.organization.pk
    fields = {"organization": rows.organization.pk, "name": "Research", "slug": "research"}
    assert console.post(form.request["PATH_INFO"], fields).status_code == 302
    assert Project.objects.get(slug="research").organization == rows.organization


def test_a_key_is_made_in_the_organization_one_came_from(console: Client, rows: Rows) -> None:
    button = reverse("console:accounts_organization_add_key", args=[quote(rows.organization.pk)])
    form = console.get(button, follow=True)
    assert form.context["adminform"].form.initial["project"] == rows.project.pk
    assert "Acme / Default" in form.content.decode()


def test_a_project_keeps_its_organization_and_slug(console: Client, rows: Rows) -> None:
    other = create_organization("Other")
    page = reverse("console:accounts_project_change", args=[quote(rows.project.pk)])
    console.post(page, {"name": "Renamed", "organization": other.pk, "slug": "stolen", **limit_fields()})
    rows.project.refresh_from_db()
    assert (rows.project.name, rows.project.slug) == ("Renamed", "default")
    assert rows.project.organization == rows.organization
