"""`crun database`: the login roles that PostgreSQL keeps for the processes."""

import click
from django.db import Error, OperationalError

from apps.core.errors import ConfigurationError
from crun.database.roles import URL_VARIABLES, apply, printed, unstated_tables, wanted_logins


@click.group()
def database() -> None:
    """The database and who may do what in it."""


@database.command("roles")
@click.option("--apply", "is_applied", is_flag=True, help="Make them, with the passwords of their URLs.")
def roles(is_applied: bool) -> None:
    """Print the SQL that makes the roles of gateway, worker and web; with --apply, run it.

    The roles are those of CRUN_DATABASE_URL_GATEWAY, _WORKER and _WEB; on the embedded server they are made at every
    start. What is printed has no passwords. Run it again after every upgrade that migrates.
    """
    logins = wanted_logins()
    if not logins:
        raise ConfigurationError(f"no role is wanted: set {', '.join(URL_VARIABLES.values())}")
    if not is_applied:
        click.echo(printed(logins), nl=False)
        return
    try:
        apply(logins)
    except OperationalError:
        raise
    except Error as error:
        raise ConfigurationError(f"DATABASE_URL may not make roles: {str(error).splitlines()[0]}") from error
    for login in logins:
        click.echo(f"{login.process:<8} {login.name}")
    if missing := unstated_tables():
        click.echo(f"No process may use these tables: {', '.join(missing)}", err=True)
