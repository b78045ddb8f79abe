"""The database roles, tried for real: each process logs in as its own, does its work, and is refused all else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from django.conf import settings
from django.db import connection

from apps.accounts.models import Organization, User
from apps.billing import grants
from apps.billing.ledger import balance_nanos
from apps.billing.posting import post_batch
from apps.billing.proofs import verify
from apps.billing.rebuilding import rebuild
from apps.catalog.snapshot import load_snapshot, read_version
from apps.core.errors import ConfigurationError
from apps.keys.reading import read_grant
from apps.usage.partitions import ensure_partitions, ensure_upcoming_partitions
from apps.usage.recording import record
from crun.database.privileges import FUNCTIONS, TABLES, TEMPORARY_TABLES, ProcessRole
from crun.database.roles import apply, printed, unstated_tables, wanted_logins
from tests import factories
from tests.billing import books

pytestmark = pytest.mark.django_db(transaction=True)
ROLES = list(ProcessRole)
LEDGER = ("billing_ledgertransaction", "billing_ledgerline", "billing_grant", "billing_ledgerlink")


@pytest.fixture
def roles() -> None:
    """The roles with their privileges, as `crun prepare` leaves them."""
    apply(wanted_logins({}))


@pytest.fixture
def owner(roles: None) -> Organization:
    """An organization with a record, a grant, lines of both, and a member with a password."""
    owner = books.organization()
    User.objects.create_user("ada@example.com", "a long password")
    books.credit(owner, 5_000)
    record([books.used(owner, factories.stored_price())])
    post_batch()
    return owner


def login(role: ProcessRole) -> "psycopg.Connection[tuple[object, ...]]":
    """A connection of the role's own, as its process has it."""
    where = settings.DATABASES["default"]
    return psycopg.connect(host=where["HOST"], user=f"crun_{role}", dbname=connection.settings_dict["NAME"])


def outcome(role: ProcessRole, statement: str) -> str:
    """`done`, or the name of the error with which PostgreSQL refuses. Nothing is kept."""
    with login(role) as own:
        try:
            own.execute(statement)
        except psycopg.Error as error:
            return type(error).__name__
        finally:
            own.rollback()
    return "done"


@contextmanager
def acting_as(role: ProcessRole) -> Iterator[None]:
    """Django's own connection with no more rights than the role has."""
    with connection.cursor() as cursor:
        cursor.execute("DISCARD TEMP")  # a temporary table of this connection belongs to whoever made it
        cursor.execute(f"SET SESSION AUTHORIZATION crun_{role}")
        try:
            yield
        finally:
            cursor.execute("RESET SESSION AUTHORIZATION")
            cursor.execute("DISCARD TEMP")


def test_every_table_says_who_may_do_what_with_it(roles: None) -> None:
    assert unstated_tables() == []
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition")
        existing = {name for (name,) in cursor.fetchall()}
    assert sorted(TABLES.keys() - existing) == []


def test_a_table_that_nobody_spoke_of_can_be_used_by_no_process(roles: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE new_table (id bigint)")
        try:
            apply(wanted_logins({}))
            assert unstated_tables() == ["new_table"]
            for role in ROLES:
                assert outcome(role, "SELECT * FROM new_table") == "InsufficientPrivilege"
        finally:
            cursor.execute("DROP TABLE new_table")


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("table", LEDGER)
def test_d27_no_process_may_change_or_empty_the_books(owner: Organization, role: ProcessRole, table: str) -> None:
    column = "position" if table == "billing_ledgerlink" else "id"
    for statement in (
        f"UPDATE {table} SET {column} = {column}",  # noqa: S608 - names of this test
        f"DELETE FROM {table}",  # noqa: S608 - names of this test
        f"TRUNCATE {table} CASCADE",
        f"DROP TABLE {table} CASCADE",
        f"ALTER TABLE {table} DISABLE TRIGGER ALL",
    ):
        assert outcome(role, statement) == "InsufficientPrivilege", statement


FORBIDDEN = {
    "gateway": (
        "INSERT INTO billing_ledgeraccount (kind) VALUES ('cash')",
        "INSERT INTO billing_ledgertransaction (id) VALUES ('txn_x')",
        "UPDATE billing_billingaccount SET credit_limit_nanos = 1",
        "UPDATE billing_ledgeraccount SET balance_nanos = 1",
        "UPDATE keys_apikey SET revoked_at = NULL",
        "UPDATE catalog_provider SET base_url = 'http://elsewhere'",
        "DELETE FROM usage_unpostedusage",
        "INSERT INTO usage_usagerollup (hour) VALUES (now())",
        "SELECT email FROM accounts_user",
        "SELECT * FROM billing_payment",
        "SELECT * FROM django_session",
        "SELECT usage_make_partition('2020-01-01')",
        "CREATE TEMP TABLE mine (id bigint)",
        "UPDATE responses_storedresponse SET sealed = ''",
        "UPDATE responses_conversationitem SET sealed = ''",
    ),
    "worker": (
        "SELECT sealed FROM responses_storedresponse",
        "SELECT sealed FROM responses_conversation",
        "SELECT sealed FROM responses_conversationitem",
        "INSERT INTO responses_storedresponse (id) VALUES ('x')",
        "SELECT * FROM accounts_user",
        "SELECT password FROM accounts_user",
        "UPDATE accounts_user SET password = ''",
        "UPDATE accounts_user SET is_superuser = true",
        "SELECT * FROM django_session",
        "UPDATE usage_usagerecord SET cost_nanos = 0",
        "DELETE FROM usage_usagerecord",
        "UPDATE keys_apikey SET revoked_at = NULL",
        "UPDATE keys_apikey SET digest = ''",
        "INSERT INTO catalog_priceversion (model_id) VALUES ('x')",
        "UPDATE billing_ledgeraccount SET balance_nanos = 1",
        "UPDATE billing_grant SET remaining_nanos = 1",
        "INSERT INTO billing_ledgerlink (chain) VALUES ('')",
        "SELECT billing_link('txn_x')",
        "CREATE TABLE public.mine (id bigint)",
    ),
    "web": (
        "INSERT INTO usage_usagerecord (request_id) VALUES ('req_x')",
        "UPDATE usage_usagerecord SET cost_nanos = 0",
        "DELETE FROM usage_usagerecord",
        "DELETE FROM usage_unpostedusage",
        "UPDATE usage_usagerollup SET cost_nanos = 0",
        "UPDATE catalog_priceversion SET note = ''",
        "UPDATE billing_ledgeraccount SET balance_nanos = 1",
        "UPDATE billing_grant SET remaining_nanos = 1",
        "UPDATE billing_ledgeranchor SET position = 1",
        "INSERT INTO billing_ledgerlink (chain) VALUES ('')",
        "SELECT usage_make_partition('2020-01-01')",
        "CREATE TABLE public.mine (id bigint)",
        "CREATE TEMP TABLE mine (id bigint)",
    ),
}
EVERYWHERE = (
    "SET ROLE crun",
    "SET session_replication_role = replica",
    "CREATE ROLE mine SUPERUSER",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "DROP FUNCTION billing_refuse_change() CASCADE",
    "CREATE OR REPLACE FUNCTION billing_refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
)


@pytest.mark.parametrize("role", ROLES)
def test_what_a_process_has_no_business_with_is_refused(owner: Organization, role: ProcessRole) -> None:
    for statement in (*FORBIDDEN[role], *EVERYWHERE):
        assert outcome(role, statement) == "InsufficientPrivilege", statement


_ACTING_AS_OWNER = """
SELECT oid::regprocedure::text, coalesce(array_to_string(proconfig, ','), ''), EXISTS (
    SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner)))
    WHERE grantee = 0 AND privilege_type = 'EXECUTE'
) FROM pg_proc
WHERE prosecdef AND pronamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname LIKE 'pg!_%' ESCAPE '!')
"""


def _acting_as_owner() -> dict[str, tuple[str, bool]]:
    """Every function that runs with the rights of its owner: its settings, and whether PUBLIC may execute it."""
    with connection.cursor() as cursor:
        cursor.execute(_ACTING_AS_OWNER)
        return {name.replace("character varying", "varchar"): (said, free) for name, said, free in cursor.fetchall()}


def test_migrations_leave_no_function_that_acts_as_its_owner_to_everybody() -> None:
    found = _acting_as_owner()
    assert found.keys() == FUNCTIONS.keys()
    assert set(found.values()) == {("search_path=public, pg_temp", False)}


def test_what_everybody_could_execute_is_closed_at_the_next_start(roles: None) -> None:
    with connection.cursor() as cursor:
        for function in FUNCTIONS:
            cursor.execute(f"GRANT EXECUTE ON FUNCTION {function} TO PUBLIC, crun_gateway")
        cursor.execute(f"GRANT TEMPORARY ON DATABASE {connection.settings_dict['NAME']} TO PUBLIC")
    apply(wanted_logins({}))
    assert not any(free for _, free in _acting_as_owner().values())
    with connection.cursor() as cursor:
        for role in ROLES:
            for function, processes in FUNCTIONS.items():
                cursor.execute("SELECT has_function_privilege(%s, %s, 'EXECUTE')", [f"crun_{role}", function])
                assert cursor.fetchone() == (role in processes,), (role, function)
            cursor.execute("SELECT has_database_privilege(%s, current_database(), 'TEMP')", [f"crun_{role}"])
            assert cursor.fetchone() == (role in TEMPORARY_TABLES,), role


# A table of one's own, with a trigger that acts as the owner of the ledger.
FORGERIES = {
    "a balance": (
        "CREATE TEMP TABLE forged (account_id bigint, amount_nanos bigint, grant_id varchar)",
        "CREATE TRIGGER forging AFTER INSERT ON forged REFERENCING NEW TABLE AS added"
        " FOR EACH STATEMENT EXECUTE FUNCTION public.billing_apply_lines()",
        "INSERT INTO forged SELECT id, 1000000000000, NULL FROM public.billing_ledgeraccount WHERE kind = 'wallet'",
    ),
    "a link of the chain": (
        "CREATE TEMP TABLE forged (id varchar)",
        "CREATE TRIGGER forging AFTER INSERT ON forged FOR EACH ROW EXECUTE FUNCTION public.billing_link_transaction()",
        "INSERT INTO forged VALUES ('txn_forged')",
    ),
}


def _forge(role: ProcessRole, what: str) -> str:
    """Try it, and keep it if it works; what PostgreSQL said."""
    with login(role) as own:
        try:
            for statement in FORGERIES[what]:
                own.execute(statement)
        except psycopg.Error as error:
            own.rollback()
            return str(error).splitlines()[0]
    return "done"


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("what", FORGERIES)
def test_a_trigger_on_a_table_of_ones_own_forges_nothing(owner: Organization, role: ProcessRole, what: str) -> None:
    before = balance_nanos(owner.id)
    assert _forge(role, what).startswith("permission denied ")
    assert (balance_nanos(owner.id), books.failed_proofs()) == (before, [])


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("what", FORGERIES)
def test_nor_would_it_if_everybody_could_execute_the_functions(
    owner: Organization, role: ProcessRole, what: str
) -> None:
    before = balance_nanos(owner.id)
    functions, database = ", ".join(FUNCTIONS), connection.settings_dict["NAME"]
    with connection.cursor() as cursor:
        cursor.execute(f"GRANT EXECUTE ON FUNCTION {functions} TO PUBLIC")
        cursor.execute(f"GRANT TEMPORARY ON DATABASE {database} TO PUBLIC")
    try:
        assert " only, not for forged" in _forge(role, what)
        assert (balance_nanos(owner.id), books.failed_proofs()) == (before, [])
    finally:
        apply(wanted_logins({}))


@pytest.mark.parametrize("role", [ProcessRole.WORKER, ProcessRole.WEB])
def test_who_may_open_a_wallet_or_a_grant_opens_it_empty(owner: Organization, role: ProcessRole) -> None:
    other = books.organization("Other").id
    columns = "billing_ledgeraccount (kind, organization_id, balance_nanos)"
    wallets = [f"INSERT INTO {columns} VALUES ('wallet', '{other}', {nanos})" for nanos in (0, 1, -1)]  # noqa: S608 - names of this test
    assert [outcome(role, wallet) for wallet in wallets] == ["done", "RestrictViolation", "RestrictViolation"]
    grant = (
        "INSERT INTO billing_grant (id, organization_id, transaction_id, source, priority, amount_nanos,"
        " remaining_nanos) SELECT 'grant_x', organization_id, 'txn_x', source, 0, 5, 5 FROM billing_grant LIMIT 1"
    )
    assert outcome(role, grant) == "RestrictViolation"


def test_a_partition_is_no_way_around_its_table(owner: Organization) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r' LIMIT 1")
        [partition] = cursor.fetchone()
    for role in ROLES:
        assert outcome(role, f"DELETE FROM {partition}") == "InsufficientPrivilege"  # noqa: S608 - from the catalog


def test_the_kind_of_an_account_cannot_be_changed_although_it_may_be_locked(owner: Organization) -> None:
    change = "UPDATE billing_ledgeraccount SET kind = 'cash' WHERE organization_id IS NOT NULL"
    for role in (ProcessRole.WORKER, ProcessRole.WEB):
        assert outcome(role, change) == "RestrictViolation"


def test_the_worker_does_its_work(owner: Organization) -> None:
    ended = books.credit(owner, 90_000, expires_at=books.START)
    price = factories.stored_price("other-model")
    with acting_as(ProcessRole.WORKER):
        ensure_upcoming_partitions()
        ensure_partitions([books.START.date()])
        assert record([books.used(owner, price)]) == 1
        assert post_batch() == 1
        grants.charge(owner.id, 70, idempotency_key=books.key(), reason="Used")
        assert grants.expire_due(books.START) == 1
        assert [proof.name for proof in verify() if not proof.holds] == []
    assert books.rest_of(ended) == [0]


def test_pages_grant_charge_and_refund(owner: Organization) -> None:
    with acting_as(ProcessRole.WEB):
        books.credit(books.organization("New"), 900)
        charged = grants.charge(owner.id, 70, idempotency_key=books.key(), reason="Used")
        grants.refund(charged.id, 20, idempotency_key=books.key(), reason="Sorry", actor="test")
        User.objects.create_user("bob@example.com", "a long password")
    assert books.failed_proofs() == []


def test_the_gateway_reads_what_a_request_needs(owner: Organization, tmp_path: Path) -> None:
    with acting_as(ProcessRole.GATEWAY):
        assert load_snapshot().version == read_version()
        assert read_grant(["nobody"]) is None
        rebuild([owner.id], tmp_path)


def test_a_role_that_has_more_loses_it_at_the_next_start(roles: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("GRANT ALL ON billing_ledgerline, accounts_user TO crun_gateway")
        cursor.execute("GRANT UPDATE (amount_nanos) ON billing_ledgerline TO crun_web")
    apply(wanted_logins({}))
    assert outcome(ProcessRole.GATEWAY, "DELETE FROM billing_ledgerline") == "InsufficientPrivilege"
    assert outcome(ProcessRole.WEB, "UPDATE billing_ledgerline SET amount_nanos = 1") == "InsufficientPrivilege"


def test_a_role_that_may_do_everything_is_refused(roles: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER ROLE crun_web SUPERUSER")
        try:
            with pytest.raises(ConfigurationError, match="crun_web"):
                apply(wanted_logins({}))
        finally:
            cursor.execute("ALTER ROLE crun_web NOSUPERUSER")


SERVER = "postgres://owner:secret@db:5432/crun"


def test_on_a_server_of_ones_own_the_urls_name_the_roles() -> None:
    assert wanted_logins({"DATABASE_URL": SERVER}) == []
    [only] = wanted_logins({"DATABASE_URL": SERVER, "CRUN_DATABASE_URL_WEB": "postgres://pages:word@db:5432/crun"})
    assert (only.process, only.name, only.password) == ("web", "pages", "word")


def test_a_process_may_not_be_the_owner() -> None:
    with pytest.raises(ConfigurationError, match="CRUN_DATABASE_URL_GATEWAY needs a user of its own"):
        wanted_logins({"DATABASE_URL": SERVER, "CRUN_DATABASE_URL_GATEWAY": "postgres://owner:x@db:5432/crun"})


def test_what_is_printed_can_be_run_and_has_no_password(roles: None) -> None:
    environment = {"DATABASE_URL": SERVER, "CRUN_DATABASE_URL_WEB": "postgres://pages:hidden@db:5432/crun"}
    script = printed(wanted_logins(environment))
    assert "hidden" not in script
    with connection.cursor() as cursor:
        cursor.execute(script)
        cursor.execute("SELECT has_table_privilege('pages', 'usage_usagerecord', 'SELECT')")
        assert cursor.fetchone() == (True,)
        cursor.execute("DROP OWNED BY pages; DROP ROLE pages")


def test_two_starts_at_once_do_not_trip_over_each_other(roles: None) -> None:
    jobs: list[Callable[[], object]] = [lambda: apply(wanted_logins({})) for _ in range(4)]
    assert books.at_once(jobs) == [None] * 4
