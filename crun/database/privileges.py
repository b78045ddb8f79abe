"""What each process may do with each table. Whoever adds a table says it here: a table that is missing fails a test.

Nobody but the owner may change or empty what the books consist of; the gateway writes nothing but the responses that
its callers have stored, which the worker may not read; the web cannot touch usage records; the worker reads no
password. Functions that act as their owner (migrations 0008 and 0009 of apps/billing) keep balances, links of the
chain and partitions, so no role needs the right to. Triggers run without anybody's right to execute their function:
who has that right may hang the function on a table of its own."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

READ: Final = ("SELECT",)
APPEND: Final = ("SELECT", "INSERT")
KEEP: Final = ("SELECT", "INSERT", "UPDATE")
EVERYTHING: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")
NOTHING: Final = ()


class ProcessRole(StrEnum):
    """The processes that have a database role of their own."""

    GATEWAY = "gateway"
    WORKER = "worker"
    WEB = "web"


@dataclass(frozen=True)
class Privileges:
    """Of one table, by process. A privilege is written as in GRANT, perhaps with columns: `UPDATE (kind)`."""

    gateway: tuple[str, ...] = NOTHING
    worker: tuple[str, ...] = NOTHING
    web: tuple[str, ...] = NOTHING

    def of(self, role: ProcessRole) -> tuple[str, ...]:
        """What one process may do."""
        return {ProcessRole.GATEWAY: self.gateway, ProcessRole.WORKER: self.worker, ProcessRole.WEB: self.web}[role]


_PEOPLE: Final = {
    # The worker sends mail to people, and never sees how they log in.
    "accounts_user": Privileges(
        worker=(
            "SELECT (id, email, first_name, last_name, is_active, is_staff, is_superuser, date_joined, last_login)",
        ),
        web=KEEP,
    ),
    "accounts_plan": Privileges(READ, READ, EVERYTHING),
    "accounts_organization": Privileges(READ, READ, KEEP),
    "accounts_project": Privileges(READ, READ, KEEP),
    "accounts_membership": Privileges(worker=READ, web=EVERYTHING),
    "accounts_user_groups": Privileges(web=EVERYTHING),
    "accounts_user_user_permissions": Privileges(web=EVERYTHING),
    "account_emailaddress": Privileges(web=EVERYTHING),
    "account_emailconfirmation": Privileges(web=EVERYTHING),
    "auth_group": Privileges(web=EVERYTHING),
    "auth_group_permissions": Privileges(web=EVERYTHING),
    "auth_permission": Privileges(web=READ),
    "django_content_type": Privileges(web=READ),
    "django_session": Privileges(web=EVERYTHING),
    "django_admin_log": Privileges(web=APPEND),
    "django_migrations": Privileges(worker=READ, web=READ),
}
_DECISIONS: Final = {
    "policies_guardrailrule": Privileges(READ, NOTHING, EVERYTHING),
    # The worker notes when a provider key was used and how that ended.
    "policies_providercredential": Privileges(
        READ, ("SELECT (id)", "UPDATE (last_used_at, last_error, last_error_at)"), EVERYTHING
    ),
    "policies_datapolicy": Privileges(READ, NOTHING, EVERYTHING),
}
_OFFER: Final = {
    # SELECT ... FOR UPDATE needs the right to change a column; the brake pauses keys from the worker.
    "keys_apikey": Privileges(READ, ("SELECT", "UPDATE (paused_at, pause_reason, brake_counts_from)"), KEEP),
    "catalog_provider": Privileges(READ, READ, EVERYTHING),
    "catalog_model": Privileges(READ, READ, EVERYTHING),
    "catalog_route": Privileges(READ, READ, EVERYTHING),
    "catalog_priceversion": Privileges(READ, READ, APPEND),
    "catalog_catalogversion": Privileges(READ, READ, KEEP),
}
_USAGE: Final = {
    "usage_usagerecord": Privileges(READ, APPEND, READ),
    "usage_unpostedusage": Privileges(READ, ("SELECT", "INSERT", "DELETE", "UPDATE (day)"), READ),
    "usage_usagerollup": Privileges(READ, KEEP, READ),
    "usage_shadowrecord": Privileges(worker=APPEND, web=READ),
    "usage_usagereview": Privileges(worker=APPEND, web=KEEP),
}
_RESPONSES: Final = {
    # What callers of the gateway had stored. The worker deletes it unread; the web may be the gateway as well.
    "responses_responsechain": Privileges(EVERYTHING, EVERYTHING, EVERYTHING),
    "responses_storedresponse": Privileges(
        ("SELECT", "INSERT", "DELETE"), ("SELECT (id, chain_id)", "DELETE"), ("SELECT", "INSERT", "DELETE")
    ),
    "responses_conversation": Privileges(EVERYTHING, ("SELECT (chain_id)", "DELETE"), EVERYTHING),
    "responses_conversationitem": Privileges(
        ("SELECT", "INSERT", "DELETE"), ("SELECT (conversation_id)", "DELETE"), ("SELECT", "INSERT", "DELETE")
    ),
}
_BOOKS: Final = {
    "billing_ledgertransaction": Privileges(worker=APPEND, web=APPEND),
    "billing_ledgerline": Privileges(worker=APPEND, web=APPEND),
    "billing_grant": Privileges(worker=APPEND, web=APPEND),
    # A trigger refuses every change of `kind`: the right to it is what lets a wallet be locked.
    "billing_ledgeraccount": Privileges(
        READ, ("SELECT", "INSERT", "UPDATE (kind)"), ("SELECT", "INSERT", "UPDATE (kind)")
    ),
    "billing_billingaccount": Privileges(READ, READ, KEEP),
    "billing_pricerule": Privileges(READ, READ, APPEND),
    "billing_providerkeyfee": Privileges(READ, READ, APPEND),
    # The web asks for a re-rating, the worker does it.
    "billing_rerating": Privileges(READ, ("SELECT", "INSERT", "UPDATE (status)"), APPEND),
    "billing_reratedusage": Privileges(READ, APPEND, READ),
    "billing_stalebalance": Privileges(worker=EVERYTHING, web=EVERYTHING),
    "billing_ledgerlink": Privileges(worker=READ, web=READ),
    "billing_ledgeranchor": Privileges(worker=KEEP, web=READ),
    "billing_reconciliationrun": Privileges(worker=KEEP, web=APPEND),
    "billing_proofresult": Privileges(worker=APPEND, web=READ),
    "billing_vendorreport": Privileges(worker=READ, web=APPEND),
    "billing_vendorcost": Privileges(worker=READ, web=KEEP),
}
_PAYMENTS: Final = {
    "billing_paymentcustomer": Privileges(worker=KEEP, web=KEEP),
    "billing_paymentmethod": Privileges(worker=KEEP, web=EVERYTHING),
    "billing_payment": Privileges(worker=KEEP, web=KEEP),
    "billing_refund": Privileges(worker=KEEP, web=KEEP),
    "billing_dispute": Privileges(worker=KEEP, web=KEEP),
    "billing_autotopup": Privileges(worker=KEEP, web=KEEP),
    "billing_webhookinbox": Privileges(worker=KEEP, web=KEEP),
    "billing_oddrow": Privileges(worker=EVERYTHING),
}
_INVOICES: Final = {
    "billing_sellerprofile": Privileges(worker=READ, web=KEEP),
    "billing_billingprofile": Privileges(worker=READ, web=KEEP),
    "billing_taxrate": Privileges(worker=READ, web=APPEND),
    "billing_documentseries": Privileges(worker=KEEP, web=KEEP),
    "billing_invoice": Privileges(worker=KEEP, web=KEEP),
    "billing_invoiceline": Privileges(worker=APPEND, web=APPEND),
    "billing_invoicetax": Privileges(worker=APPEND, web=APPEND),
    "billing_creditnote": Privileges(worker=KEEP, web=KEEP),
}
_ALERTS: Final = {
    "billing_alert": Privileges(worker=KEEP, web=KEEP),
    "billing_alertsettings": Privileges(worker=KEEP, web=KEEP),
    "billing_alertpass": Privileges(worker=KEEP, web=READ),
    "billing_webhookendpoint": Privileges(worker=KEEP, web=EVERYTHING),
    "billing_webhookdelivery": Privileges(worker=EVERYTHING, web=EVERYTHING),
    "billing_alertemail": Privileges(worker=EVERYTHING, web=APPEND),
}
TABLES: Final[dict[str, Privileges]] = {
    **_PEOPLE, **_DECISIONS, **_OFFER, **_USAGE, **_RESPONSES, **_BOOKS, **_PAYMENTS, **_INVOICES, **_ALERTS,
}  # fmt: skip
"""Every table of the schema but the partitions, which are reached through their table."""
FUNCTIONS: Final[dict[str, tuple[ProcessRole, ...]]] = {
    "usage_make_partition(date)": (ProcessRole.WORKER,),
    "billing_apply_lines()": (),
    "billing_link(varchar)": (),
    "billing_link_transaction()": (),
}
"""Every function that acts as its owner: nobody may execute it but the owner and these."""
TEMPORARY_TABLES: Final = (ProcessRole.WORKER,)
"""Who may make temporary tables: usage is recorded through one. Whoever makes a table may hang triggers on it."""
