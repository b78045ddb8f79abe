"""Making the database roles and giving them their privileges: the same statements, printed or run."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import environ
from django.db import connection, transaction
from psycopg import sql

from apps.core.errors import ConfigurationError
from crun.database.privileges import FUNCTIONS, TABLES, TEMPORARY_TABLES, ProcessRole

URL_VARIABLES = {
    ProcessRole.GATEWAY: "CRUN_DATABASE_URL_GATEWAY",
    ProcessRole.WORKER: "CRUN_DATABASE_URL_WORKER",
    ProcessRole.WEB: "CRUN_DATABASE_URL_WEB",
}
_LOCK = 0x6372756F
_TABLES = """
SELECT relname FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
"""
_MAKE = """
DO $$ BEGIN
    CREATE ROLE {role} LOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$
"""


@dataclass(frozen=True)
class Login:
    """A role of PostgreSQL for one of the processes; without a password where the server needs none."""

    process: ProcessRole
    name: str
    password: str = ""


def wanted_logins(environment: Mapping[str, str] = os.environ) -> list[Login]:
    """The roles that this installation uses: those of the URLs that are set, all three on the embedded server.

    Raises ConfigurationError for a URL without a user, or with that of DATABASE_URL."""
    if not environment.get("DATABASE_URL"):
        return [Login(process, default_name(process)) for process in ProcessRole]
    owner = environ.Env.db_url_config(environment["DATABASE_URL"])["USER"]
    logins = []
    for process, variable in URL_VARIABLES.items():
        if url := environment.get(variable):
            settings = environ.Env.db_url_config(url)
            if not settings["USER"] or settings["USER"] == owner:
                raise ConfigurationError(f"{variable} needs a user of its own, not that of DATABASE_URL")
            logins.append(Login(process, settings["USER"], settings["PASSWORD"] or ""))
    return logins


def default_name(process: ProcessRole) -> str:
    """What a role is called where nobody chose another name."""
    return f"crun_{process}"


def statements(
    logins: Iterable[Login], *, database: str, tables: Iterable[str], with_passwords: bool
) -> list[sql.Composable]:
    """Everything that makes the roles and leaves them exactly the privileges that are written down.

    `tables` are those that exist in `database`. A role keeps the password that it has when none is given. What PUBLIC
    may do with a database only its owner can revoke: PostgreSQL merely warns anybody else."""
    found = set(tables)
    here = sql.Identifier(database)
    made: list[sql.Composable] = [
        sql.SQL("REVOKE CREATE ON SCHEMA public FROM PUBLIC"),
        sql.SQL("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC").format(here),
        *(sql.SQL("REVOKE ALL ON FUNCTION {} FROM PUBLIC").format(sql.SQL(function)) for function in FUNCTIONS),
    ]
    for login in logins:
        role = sql.Identifier(login.name)
        made.append(sql.SQL(_MAKE.strip()).format(role=role))
        if login.password and with_passwords:
            made.append(sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, sql.Literal(login.password)))
        made.append(sql.SQL("GRANT USAGE ON SCHEMA public TO {}").format(role))
        made.append(sql.SQL("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {}").format(role))
        for table, privileges in TABLES.items():
            granted = ", ".join(privileges.of(login.process))
            if granted and table in found:
                grant = sql.SQL("GRANT {} ON {} TO {}")
                made.append(grant.format(sql.SQL(granted), sql.Identifier(table), role))
        for function, processes in FUNCTIONS.items():
            right = sql.SQL("EXECUTE ON FUNCTION {}").format(sql.SQL(function))
            made.append(_given(right, role, login.process in processes))
        right = sql.SQL("TEMPORARY ON DATABASE {}").format(here)
        made.append(_given(right, role, login.process in TEMPORARY_TABLES))
    return made


def _given(right: sql.Composable, role: sql.Identifier, is_granted: bool) -> sql.Composable:
    return sql.SQL("GRANT {} TO {}" if is_granted else "REVOKE {} FROM {}").format(right, role)


def printed(logins: Iterable[Login]) -> str:
    """The statements as a script, without passwords. Reads which tables there are: raises django.db.Error."""
    with connection.cursor() as cursor:
        made = _statements_here(cursor, logins, with_passwords=False)
        return "".join(f"{statement.as_string(cursor.connection)};\n" for statement in made)


@transaction.atomic
def apply(logins: Iterable[Login]) -> None:
    """Make the roles and set their privileges, all or nothing; doing it again changes nothing.

    Raises ConfigurationError for a role that may do everything anyway, django.db.Error when this connection may not
    make roles."""
    logins = list(logins)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        for statement in _statements_here(cursor, logins, with_passwords=True):
            cursor.execute(statement)
        cursor.execute(
            "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)"
            " AND (rolsuper OR pg_has_role(rolname, current_user, 'MEMBER'))",
            [[login.name for login in logins]],
        )
        if mighty := [name for (name,) in cursor.fetchall()]:
            raise ConfigurationError(f"these database roles may do whatever the owner may: {', '.join(mighty)}")


def unstated_tables() -> list[str]:
    """Tables whose privileges nobody has written down: no process can use them."""
    with connection.cursor() as cursor:
        return sorted(_existing_tables(cursor) - TABLES.keys())


def _statements_here(cursor: object, logins: Iterable[Login], *, with_passwords: bool) -> list[sql.Composable]:
    database = connection.settings_dict["NAME"]
    return statements(logins, database=database, tables=_existing_tables(cursor), with_passwords=with_passwords)


def _existing_tables(cursor: object) -> set[str]:
    cursor.execute(_TABLES)  # type: ignore[attr-defined]  # Django's cursor has no public type
    return {name for (name,) in cursor.fetchall()}  # type: ignore[attr-defined]  # as above
