"""What an organization decided for one key, from the database. Synchronous: a gateway comes here with its key."""

from typing import Any

import msgspec
from django.db.models import Exists, OuterRef, Q

from apps.policies.contracts import Policy
from apps.policies.data_rules import DataRules
from apps.policies.models import DataPolicy, GuardrailRule, ProviderCredential
from apps.policies.own_credentials import OwnCredential
from apps.policies.rules import Check, Guardrail


def something_is_decided() -> Q:
    """For an annotation of keys: whether there is a row that `read_policy` would look at.

    Whoever has decided nothing, which is nearly everybody, costs no query of its own then."""
    owner = OuterRef("organization_id")
    return (
        Q(Exists(GuardrailRule.objects.filter(organization_id=owner)))
        | Q(Exists(ProviderCredential.objects.filter(organization_id=owner, enabled=True)))
        | Q(Exists(DataPolicy.objects.filter(organization_id=owner)))
    )


def read_policy(organization_id: str, key_id: str) -> Policy | None:
    """What holds for requests of this key, one query for each kind of decision; None when nothing does."""
    policy = Policy(
        guardrails=_guardrails(organization_id, key_id),
        data=read_data_rules(organization_id),
        credentials=_credentials(organization_id, key_id),
    )
    return policy if policy != Policy() else None


def read_data_rules(organization_id: str) -> DataRules | None:
    """Where its prompts may go; None when that is anywhere."""
    row = DataPolicy.objects.for_organization(organization_id).first()
    if row is None:
        return None
    rules = DataRules(
        tuple(row.regions),
        denies_collection=row.denies_collection,
        requires_zero_retention=row.requires_zero_retention,
        denied_providers=tuple(row.denied_providers),
        forbids_copies=row.forbids_copies,
        forbids_storage=row.forbids_storage,
    )
    return rules if rules != DataRules() else None


def _guardrails(organization_id: str, key_id: str) -> tuple[Guardrail, ...]:
    rows = (
        GuardrailRule.objects.for_organization(organization_id)
        .filter(Q(key=None) | Q(key_id=key_id))
        .exclude(mode="off")
        .order_by("created_at", "id")
    )
    return tuple(guardrail_of(row) for row in rows)


def _credentials(organization_id: str, key_id: str) -> tuple[OwnCredential, ...]:
    rows = (
        ProviderCredential.objects.for_organization(organization_id)
        .filter(Q(key_ids=[]) | Q(key_ids__contains=[key_id]), enabled=True)
        .order_by("order", "id")
    )
    return tuple(
        OwnCredential(
            id=row.id,
            organization_id=row.organization_id,
            provider=row.provider_id,
            sealed=row.secret,
            options=row.options,
            models=tuple(row.model_ids),
            is_exclusive=row.is_exclusive,
        )
        for row in rows
    )


def guardrail_of(row: Any) -> Guardrail:
    """The rule of a row. Raises msgspec.ValidationError for settings that no check has."""
    check = msgspec.convert({**row.check_settings, "kind": row.kind}, Check)
    return Guardrail(row.id, row.name, row.mode, row.direction, row.action, check)
