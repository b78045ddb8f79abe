"""`crun key`: API keys and their limits."""

from typing import Any

import click

from apps.accounts.models import Organization, Project
from apps.accounts.organizations import DEFAULT_PROJECT
from apps.core.brake_fields import DEFAULT_MINUTES, MAX_MINUTES
from apps.core.errors import NotFound
from apps.core.limits import BRAKE_WORDS, Limits, spoken_limits
from apps.core.priorities import Priority
from apps.keys.issuing import create_key, revoke_key, set_limits, set_priority
from apps.keys.models import ApiKey
from apps.keys.pausing import resume_key, set_brake, spoken_brake
from crun.cli.limit_options import Usd, changed_limits, limit_lines, limit_options


@click.group()
def key() -> None:
    """API keys."""


@key.command()
@click.option("--organization", "slug", required=True, help="Slug of the organization, such as `demo`.")
@click.option("--project", default=DEFAULT_PROJECT, show_default=True, help="Slug of the project.")
@click.option("--name", required=True, help="What the key is for.")
@click.option("--sandbox", is_flag=True, help="A key that calls sandbox models only and spends no money.")
@limit_options
def create(slug: str, project: str, name: str, *, sandbox: bool, **options: Any) -> None:
    """Create a key. Standard output is the key alone, which cannot be shown again; its id goes to standard error."""
    limits = changed_limits(Limits(), options)
    issued = create_key(_project(organization(slug), project), name=name, limits=limits, sandbox=sandbox)
    click.echo(issued.secret)
    click.echo(f"id: {issued.key.id}", err=True)


@key.command("limits")
@click.argument("key_id", metavar="ID")
@limit_options
def change_limits(key_id: str, **options: Any) -> None:
    """Change limits of the key with this ID, then show all of them. Limits that are not named stay.

    The value `none` lifts a limit. Without options nothing changes. Every gateway follows within a second."""
    found = _key(key_id)
    changed = changed_limits(found.limits, options)
    if changed != found.limits:
        set_limits(found, changed)
    for line in limit_lines(changed):
        click.echo(line)


@key.command()
@click.argument("key_id", metavar="ID")
def revoke(key_id: str) -> None:
    """Revoke the key with this ID: every gateway refuses it within a second."""
    found = revoke_key(_key(key_id))
    click.echo(f"{found.id} is revoked")


@key.command()
@click.argument("key_id", metavar="ID")
def resume(key_id: str) -> None:
    """Let the paused key with this ID work again. Its brake counts from now on."""
    found = resume_key(_key(key_id))
    click.echo(f"{found.id} works")


@key.command()
@click.argument("key_id", metavar="ID")
@click.option(
    "--usd", type=Usd(BRAKE_WORDS), metavar="USD", required=True, help="As 12.50. 0: no brake. none: the plan's."
)
@click.option("--minutes", type=click.IntRange(1, MAX_MINUTES), default=DEFAULT_MINUTES, show_default=True)
def brake(key_id: str, usd: int | str, minutes: int) -> None:
    """Pause the key with this ID whenever it spends more than USD within so many minutes."""
    changed = set_brake(_key(key_id), None if isinstance(usd, str) else usd, minutes=minutes)
    words = spoken_brake(changed.brake_nanos, changed.brake_minutes) or "has no brake"
    click.echo(f"{changed.id} {'does as its plan says' if changed.brake_nanos is None else words}")


@key.command("priority")
@click.argument("key_id", metavar="ID")
@click.argument("word", type=click.Choice([*(each.spoken for each in Priority), "none"]))
def change_priority(key_id: str, word: str) -> None:
    """Have requests with this ID's key sent away sooner or later under load; none: as its organization.

    It never counts for more than the organization's, which is set in the console."""
    changed = set_priority(_key(key_id), None if word == "none" else Priority[word.upper()])
    click.echo(f"{changed.id} does as its organization" if changed.priority is None else f"{changed.id}: {word}")


@key.command("list")
@click.option("--organization", "slug", required=True, help="Slug of the organization.")
def list_keys(slug: str) -> None:
    """List an organization's keys: id, name, project, what is shown of the key, state, limits, live or sandbox."""
    keys = ApiKey.objects.for_organization(organization(slug).id).select_related("project")
    for row in keys:
        state = "revoked" if row.revoked_at else "paused" if row.paused_at else "active"
        words = ", ".join(spoken_limits(row.limits)) or "no limits"
        kind = "sandbox" if row.sandbox else "live"
        click.echo("\t".join([row.id, row.name, row.project.slug, row.redacted, state, words, kind]))


def organization(slug: str) -> Organization:
    """The organization with this slug. Raises NotFound."""
    found = Organization.objects.filter(slug=slug).first()
    if found is None:
        raise NotFound(f"there is no organization with the slug {slug!r}")
    return found


def _key(key_id: str) -> ApiKey:
    found: ApiKey | None = ApiKey.objects.filter(pk=key_id).first()
    if found is None:
        raise NotFound(f"there is no key with the id {key_id!r}")
    return found


def _project(owner: Organization, slug: str) -> Project:
    found: Project | None = Project.objects.for_organization(owner.id).filter(slug=slug).first()
    if found is None:
        raise NotFound(f"the organization {owner.slug!r} has no project with the slug {slug!r}")
    return found
