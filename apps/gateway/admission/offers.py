"""Which models a key may see and call: a sandbox key those of the sandbox, and whatever its guardrails allow. Pure."""

from apps.catalog.contracts import CatalogSnapshot, OfferedModel
from apps.gateway.errors import CONTENT_POLICY, LIVE_MODEL, MODEL_NOT_FOUND, GatewayError
from apps.keys.contracts import KeyGrant
from apps.policies.compiled import forbids
from apps.policies.guarding import Guarding
from apps.policies.rules import Guardrail, ModelsCheck
from apps.policies.scanning import Blocked


def models_for(grant: KeyGrant, snapshot: CatalogSnapshot) -> list[OfferedModel]:
    """The models that the key can call now, by id: those that a route is left to by its organization's data policy."""
    models = [model for model in snapshot.models.values() if model.is_sandbox or not grant.sandbox]
    if grant.policy is not None and grant.policy.guardrails:
        rules = [rule for rule in model_rules(grant) if rule.mode == "on"]
        models = [model for model in models if not any(forbids(rule, model.id) for rule in rules)]
    if grant.policy is not None and grant.policy.data is not None:
        permits = grant.policy.data.permits
        models = [model for model in models if any(map(permits, model.targets))]
    return sorted(models, key=lambda model: model.id)


def model_rules(grant: KeyGrant) -> tuple[Guardrail, ...]:
    """The guardrails by which `models_for` leaves models out."""
    if grant.policy is None or not grant.policy.guardrails:
        return ()
    return tuple(rule for rule in grant.policy.guardrails if isinstance(rule.check, ModelsCheck))


def shown(snapshot: CatalogSnapshot, model_id: str, *, grant: KeyGrant) -> OfferedModel:
    """As `offered`, and 404 for a model that a guardrail forbids: it is not on the list either."""
    model = offered(snapshot, model_id, grant=grant)
    if any(forbids(rule, model_id) for rule in model_rules(grant) if rule.mode == "on"):
        raise _unknown(model_id)
    return model


def offered(snapshot: CatalogSnapshot, model_id: str, *, grant: KeyGrant) -> OfferedModel:
    """The model of this id. Raises GatewayError: 404 for none, 403 for a live model that a sandbox key asks for."""
    model = snapshot.models.get(model_id)
    if model is None:
        raise _unknown(model_id)
    if grant.sandbox and not model.is_sandbox:
        message = (
            f"This is a sandbox key, and '{model_id}' is a live model. Sandbox keys call sandbox models only, which"
            " GET /models lists; for this one use a live key."
        )
        raise GatewayError(LIVE_MODEL, message, param="model")
    return model


def check_allowed(model: OfferedModel, guarding: Guarding) -> None:
    """Raises GatewayError (400) for a model that a guardrail forbids."""
    try:
        guarding.check_model(model.id)
    except Blocked as blocked:
        message = f"A guardrail of your organization does not allow the model '{model.id}': “{blocked.guardrail.name}”."
        raise GatewayError(CONTENT_POLICY, message, param="model") from None


def _unknown(model_id: str) -> GatewayError:
    message = f"The model '{model_id}' does not exist or you do not have access to it."
    return GatewayError(MODEL_NOT_FOUND, message, param="model")
