"""What a request says of its way: the fields `models` and `provider`, read and checked. Pure."""

from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from apps.catalog.contracts import QUANTIZATIONS
from apps.core.money import NANOS_PER_USD
from apps.gateway.dialects.chat_fields import MAX_MODEL_ID, clean_name
from apps.gateway.dialects.model_request import ModelRequest
from apps.gateway.errors import bad_field
from apps.policies.data_rules import DataRules

MAX_MODELS: Final = 8
MAX_PROVIDERS: Final = 32
SORTS: Final = ("price", "throughput", "latency")
PRICE_LIMITS: Final = {"prompt": "input", "completion": "output", "audio": "audio_input"}
"""Fields of `max_price` in USD per million tokens -> bucket."""
FLAT_LIMITS: Final = {"request": "per_request", "image": "per_image"}
"""Fields of `max_price` in USD for one."""


class Preferences(msgspec.Struct, frozen=True):
    """The `provider` object of a request. Providers are named by the operator's ids."""

    order: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    allow_fallbacks: bool = True
    require_parameters: bool = False
    denies_collection: bool = False
    requires_zero_retention: bool = False
    quantizations: tuple[str, ...] = ()
    sort: str = ""
    max_price: tuple[tuple[str, int], ...] = ()
    """Field of Rates -> the most it may be: nano-USD per million tokens, or for one."""
    min_throughput: float = 0.0
    """Tokens a second."""
    max_latency: float = 0.0
    """Seconds to the first byte; 0 for any."""

    @property
    def is_private(self) -> bool:
        """Whether it says anything of where the prompt may go."""
        return self.denies_collection or self.requires_zero_retention

    @property
    def data(self) -> DataRules:
        """What it says of where the prompt may go, in the terms of an organization's policy."""
        return DataRules(denies_collection=self.denies_collection, requires_zero_retention=self.requires_zero_retention)

    @property
    def is_measured(self) -> bool:
        """Whether how the routes did lately decides."""
        return self.sort in ("latency", "throughput") or bool(self.min_throughput or self.max_latency)


class Wishes(msgspec.Struct, frozen=True):
    """What a request says of its way: its models in their order, and its preferences."""

    models: tuple[str, ...]
    preferences: Preferences = Preferences()


def wishes_of(asked: ModelRequest) -> Wishes:
    """Read `models` and `provider`. Raises GatewayError (400) naming the first field that is wrong."""
    models, provider = asked.body.get("models"), asked.body.get("provider")
    names = (asked.model, *(_models(models) if models is not None else ()))
    preferences = _preferences(provider) if provider is not None else Preferences()
    return Wishes(tuple(dict.fromkeys(names)), preferences)


def _models(value: object) -> list[str]:
    if not isinstance(value, list) or len(value) > MAX_MODELS:
        raise bad_field("models", f"models must be a list of at most {MAX_MODELS} model ids.")
    return [clean_name(f"models[{index}]", name, most=MAX_MODEL_ID) for index, name in enumerate(value)]


def _preferences(value: object) -> Preferences:
    if not isinstance(value, dict):
        raise bad_field("provider", "provider must be an object.")
    found: dict[str, Any] = {}
    for name, given in value.items():
        field = f"provider.{name}"
        reader = _READERS.get(name)
        if reader is None:
            raise bad_field(field, f"provider has no field {name!r}; it may have: {', '.join(_READERS)}.")
        if given is not None:
            found |= reader(field, given)
    return Preferences(**found)


def _providers(field: str, value: object) -> dict[str, Any]:
    if value == [] and field != "provider.only":
        return {}  # some clients send their empty defaults; that nobody may serve it is no default
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_PROVIDERS:
        raise bad_field(field, f"{field} must be a list of 1 to {MAX_PROVIDERS} provider ids.")
    names = (clean_name(f"{field}[{index}]", name, most=MAX_MODEL_ID) for index, name in enumerate(value))
    return {field.partition(".")[2]: tuple(names)}


def _flag(field: str, value: object) -> dict[str, Any]:
    if not isinstance(value, bool):
        raise bad_field(field, f"{field} must be true or false.")
    return {field.partition(".")[2]: value}


def _unpromised_flag(field: str, value: object) -> dict[str, Any]:
    if _flag(field, value).popitem()[1]:
        raise bad_field(field, f"{field} cannot be promised: it is not known of the providers here.")
    return {}


def _data_collection(field: str, value: object) -> dict[str, Any]:
    if value not in ("allow", "deny"):
        raise bad_field(field, f"{field} must be 'allow' or 'deny'.")
    return {"denies_collection": value == "deny"}


def _zero_retention(field: str, value: object) -> dict[str, Any]:
    return {"requires_zero_retention": _flag(field, value).popitem()[1]}


def _quantizations(field: str, value: object) -> dict[str, Any]:
    if not isinstance(value, list) or not value:
        raise bad_field(field, f"{field} must be a list of strings.")
    for index, name in enumerate(value):
        if name not in QUANTIZATIONS:
            raise bad_field(f"{field}[{index}]", f"{field} may have: {', '.join(QUANTIZATIONS)}.")
    return {"quantizations": tuple(value)}


def _sort(field: str, value: object) -> dict[str, Any]:
    if value not in SORTS:
        raise bad_field(field, f"{field} must be one of: {', '.join(SORTS)}.")
    return {"sort": value}


def _max_price(field: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise bad_field(field, f"{field} must be an object.")
    known = {**PRICE_LIMITS, **FLAT_LIMITS}
    limits = []
    for name, given in value.items():
        if name not in known:
            raise bad_field(f"{field}.{name}", f"{field} has no field {name!r}; it may have: {', '.join(known)}.")
        if given is not None:
            limits.append((known[name], _nanos(f"{field}.{name}", given)))
    return {"max_price": tuple(limits)}


def _nanos(field: str, value: object) -> int:
    amount = None
    if isinstance(value, str) or type(value) in (int, float):
        try:
            amount = Decimal(str(value))
        except InvalidOperation:
            amount = None
    if amount is None or not amount.is_finite() or not 0 <= amount < 1_000_000_000:
        raise bad_field(field, f"{field} must be an amount in USD, 0 or more.")
    return int(amount * NANOS_PER_USD)


def _figure(name: str) -> Any:
    """A number, or an object with `p50`: averages are all that is kept."""

    def read(field: str, value: object) -> dict[str, Any]:
        if isinstance(value, dict):
            for other in value:
                if other != "p50":
                    raise bad_field(f"{field}.{other}", f"{field} knows p50 alone: averages are what is kept here.")
            value = value.get("p50")
        if value is None:
            return {}
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e9:
            raise bad_field(field, f"{field} must be a number above 0.")
        return {name: float(value)}

    return read


_READERS: Final = {
    "order": _providers,
    "only": _providers,
    "ignore": _providers,
    "allow_fallbacks": _flag,
    "require_parameters": _flag,
    "data_collection": _data_collection,
    "zdr": _zero_retention,
    "enforce_distillable_text": _unpromised_flag,
    "quantizations": _quantizations,
    "sort": _sort,
    "max_price": _max_price,
    "preferred_min_throughput": _figure("min_throughput"),
    "preferred_max_latency": _figure("max_latency"),
}
