"""Creating organizations; every one starts with a default project."""

from django.db import IntegrityError, transaction
from django.utils.text import slugify

from apps.accounts.models import Membership, Organization, Project, User
from apps.accounts.roles import Role
from apps.core.errors import Conflict, InvalidInput
from apps.core.names import check_name

DEFAULT_PROJECT = "default"
MAX_NAME_LENGTH = 100
_SLUG_TRIES = 50


def create_organization(name: str, *, slug: str | None = None, owner: User | None = None) -> Organization:
    """A new organization with its default project, and its owner when one is named.

    Without `slug` one is made from the name and numbered until it is free. Raises InvalidInput for a name without
    letters or digits and Conflict for a slug that is taken."""
    name = check_name(name, of="an organization", longest=MAX_NAME_LENGTH)
    with transaction.atomic():
        organization = _insert(name, slug) if slug else _insert_numbered(name)
        Project.objects.create(organization=organization, name="Default", slug=DEFAULT_PROJECT)
        if owner is not None:
            Membership.objects.create(organization=organization, user=owner, role=Role.OWNER)
    return organization


def default_project(organization: Organization) -> Project:
    """The project that keys belong to when nobody names another."""
    project: Project = Project.objects.for_organization(organization.id).get(slug=DEFAULT_PROJECT)
    return project


def _insert(name: str, slug: str) -> Organization:
    if slugify(slug) != slug:
        raise InvalidInput(f"{slug!r} is no slug: use lower-case letters, digits and hyphens")
    try:
        with transaction.atomic():
            return Organization.objects.create(name=name, slug=slug)
    except IntegrityError as error:
        raise Conflict(f"an organization with the slug {slug!r} exists already") from error


def _insert_numbered(name: str) -> Organization:
    base = slugify(name)[:50] or "organization"
    for number in range(1, _SLUG_TRIES + 1):
        try:
            return _insert(name, base if number == 1 else f"{base}-{number}")
        except Conflict:
            continue
    raise Conflict(f"no free slug near {base!r}: name one")
