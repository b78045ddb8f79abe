"""Which models a key may see and call: a sandbox key those of the sandbox alone. Pure."""

from apps.catalog.contracts import CatalogSnapshot, OfferedModel
from apps.gateway.errors import LIVE_MODEL, MODEL_NOT_FOUND, GatewayError
from apps.keys.contracts import KeyGrant


def models_for(grant: KeyGrant, snapshot: CatalogSnapshot) -> list[OfferedModel]:
    """The models that the key can call now, by id."""
    models = (model for model in snapshot.models.values() if model.is_sandbox or not grant.sandbox)
    return sorted(models, key=lambda model: model.id)


def offered(snapshot: CatalogSnapshot, model_id: str, *, grant: KeyGrant) -> OfferedModel:
    """The model of this id. Raises GatewayError: 404 for none, 403 for a live model that a sandbox key asks for."""
    model = snapshot.models.get(model_id)
    if model is None:
        message = f"The model '{model_id}' does not exist or you do not have access to it."
        raise GatewayError(MODEL_NOT_FOUND, message, param="model")
    if grant.sandbox and not model.is_sandbox:
        message = (
            f"This is a sandbox key, and '{model_id}' is a live model. Sandbox keys call sandbox models only, which"
            " GET /models lists; for this one use a live key."
        )
        raise GatewayError(LIVE_MODEL, message, param="model")
    return model
