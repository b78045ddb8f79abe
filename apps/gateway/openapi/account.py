"""Models, keys, credits, receipts and errors in the API document. Pure."""

from typing import Any, Final

from apps.catalog.contracts import QUANTIZATIONS
from apps.core.limits import RATES
from apps.core.priorities import Priority
from apps.gateway.listing.models import MAX_PAGE
from apps.gateway.openapi.shapes import (
    Schema,
    boolean,
    closed,
    integer,
    listing,
    mapping,
    moment,
    nullable,
    number,
    one_of,
    ref,
    text,
    usd,
)

_AMOUNT_NAMES: Final = (
    "prompt", "completion", "input_cache_read", "input_cache_write", "internal_reasoning", "request", "image",
    "input_cache_write_1h", "audio", "image_token", "audio_output", "image_output",
)  # fmt: skip
_PRICED_APART: Final = ("input_cache_write_1h", "audio", "image_token", "audio_output", "image_output")
_AMOUNTS: Final[dict[str, Schema]] = {name: usd() for name in _AMOUNT_NAMES}
_CLOCK: Final = text(pattern="^[0-9]{2}:[0-9]{2}$")

PRICING: Final = closed(
    "Decimal strings in USD per token, request or image. Prices of media stand there when they have own ones.",
    optional=(*_PRICED_APART, "variants"),
    **_AMOUNTS,
    variants=listing(
        closed(
            "Prices of requests that meet all of these conditions.",
            optional=(*_PRICED_APART, "min_input_tokens", "service_tier", "utc_from", "utc_until"),
            min_input_tokens=integer(minimum=1),
            service_tier=one_of("batch", "flex", "priority"),
            utc_from=_CLOCK,
            utc_until=_CLOCK,
            **_AMOUNTS,
        )
    ),
)
MODEL: Final = closed(
    "A model, in OpenAI's fields and OpenRouter's. null stands for what is not known.",
    optional=("list_pricing",),
    id=text(),
    canonical_slug=text(),
    object={"const": "model"},
    created=integer("Unix seconds."),
    owned_by=text(),
    name=text(),
    description=text(),
    context_length=integer(minimum=1),
    architecture=closed(
        modality=text(),
        input_modalities=listing(text()),
        output_modalities=listing(text()),
        tokenizer=nullable(text()),
        instruct_type=nullable(text()),
    ),
    pricing=nullable(ref("Pricing")),
    list_pricing=ref("Pricing"),
    is_sandbox=boolean("Whether it costs nothing and answers without a vendor."),
    top_provider=closed(
        context_length=integer(minimum=1),
        max_completion_tokens=nullable(integer("null for embeddings: they are no output.", minimum=1)),
        is_moderated=boolean(),
    ),
    per_request_limits={"type": "null"},
    supported_parameters=listing(text(), "What is never dropped, whichever way it goes. More may be asked."),
    default_parameters={"type": "object"},
    hugging_face_id={"type": "null"},
    knowledge_cutoff={"type": "null"},
    expiration_date={"type": "null"},
)
_PERCENTILES: Final = nullable(closed(p50=number(), p75=number(), p90=number(), p99=number()))
_WINDOW: Final[dict[str, Any]] = {"from": moment(), "until": moment(), "note": nullable(text())}
ENDPOINTS: Final = closed(
    "The routes of a model in OpenRouter's fields, as the worker that answers saw them. null: that is not known.",
    data=closed(
        id=text(),
        name=text(),
        created=integer("Unix seconds."),
        description=text(),
        architecture=MODEL["properties"]["architecture"],
        endpoints=listing(
            closed(
                name=text(),
                model_id=text(),
                model_name=text(),
                provider_name=nullable(text("Where the operator shows it.")),
                tag=nullable(text("What `provider` of a request calls it, where the operator shows it.")),
                context_length=integer(minimum=1),
                max_completion_tokens=nullable(integer(minimum=1)),
                max_prompt_tokens={"type": "null"},
                pricing=nullable(ref("Pricing")),
                quantization={"enum": list(QUANTIZATIONS)},
                supports_implicit_caching={"type": "null"},
                supported_parameters=listing(text()),
                status={
                    "type": "integer",
                    "enum": [0, -1, -2, -3],
                    "description": "0: it serves; -1: it failed and must show that it can; -2: it rests; -3: it is in"
                    " maintenance.",
                },
                maintenance=nullable(
                    closed(
                        "The time in which the route gets no new requests, now or next.",
                        **_WINDOW,
                    )
                ),
                uptime_last_5m={"type": "null"},
                uptime_last_30m=nullable(number("Per cent.", minimum=0, maximum=100)),
                uptime_last_1d={"type": "null"},
                latency_last_30m=_PERCENTILES | {"description": "Milliseconds to the first byte."},
                throughput_last_30m=_PERCENTILES | {"description": "Tokens of output a second."},
                cache_hit_rate_last_30m=nullable(
                    number("The share of input tokens that prompt caches had.", minimum=0, maximum=1)
                ),
            ),
            minItems=1,
        ),
    ),
)
MODEL_LIST: Final = closed(object={"const": "list"}, data=listing(ref("Model")))
ANTHROPIC_MODEL: Final = closed(
    "A model in Anthropic's shape: for callers who send `anthropic-version`.",
    type={"const": "model"},
    id=text(),
    display_name=text(),
    created_at=moment(),
    lifecycle={"const": "active"},
    max_input_tokens=integer("What it can take at most.", minimum=1),
    max_tokens=nullable(integer("What `max_tokens` can be at most; null for a model without text.", minimum=1)),
)
ANTHROPIC_MODEL_LIST: Final = closed(
    data=listing(ref("AnthropicModel"), maxItems=MAX_PAGE),
    has_more=boolean(),
    first_id=nullable(text()),
    last_id=nullable(text()),
)

ERROR: Final = closed(
    "Every error in OpenAI's shape; the table of types and codes is in errors.md.",
    error=closed(message=text(), type=text(), param=nullable(text()), code=nullable(text())),
)
ANTHROPIC_ERROR: Final = closed(
    "The same for callers who send `anthropic-version`.",
    type={"const": "error"},
    error=closed(
        optional=("details",),
        type=text(),
        message=text(),
        param=nullable(text()),
        code=nullable(text()),
        details=closed("What Anthropic's SDK looks for.", error_code=text()),
    ),
    request_id=text(),
)
CLIENT_ERROR: Final = closed("Errors under /client/.", code=integer(), message=text(), data={"type": "null"})

_EACH_RATE: Final[dict[str, Any]] = {name: nullable(integer()) for name in RATES}
_RATES: Final = closed(**_EACH_RATE)
_OWNER: Final = closed(id=text(), slug=text())
KEY: Final = closed(
    "What the calling key is, may use and has left. Amounts in USD; null while the store of money is away.",
    id=text(),
    label=text(),
    is_sandbox=boolean(),
    priority=one_of(*(each.spoken for each in Priority)),
    organization=_OWNER,
    project=_OWNER,
    created_at=nullable(moment()),
    expires_at=nullable(moment()),
    usage=nullable(number()),
    usage_daily=nullable(number()),
    usage_weekly=nullable(number()),
    usage_monthly=nullable(number()),
    held=nullable(number("What its running requests hold.")),
    limit=nullable(number()),
    limit_remaining=nullable(number()),
    limit_reset=nullable(one_of("daily", "weekly", "monthly")),
    limit_reset_at=nullable(moment()),
    is_free_tier=boolean(),
    is_management_key=boolean(),
    is_provisioning_key=boolean(),
    include_byok_in_limit=boolean(),
    rate_limits=closed(key=_RATES, project=_RATES, organization=_RATES),
    rate_limits_remaining=closed(requests=nullable(integer()), tokens=nullable(integer())),
)
CREDITS: Final = closed(
    "In USD. `balance` is the difference of the two sums, `available` what a new request may still take.",
    total_credits=number(),
    total_usage=number(),
    balance=number(),
    held=number(),
    credit_limit=number(),
    available=number(),
    is_sandbox=boolean(),
)
BALANCE: Final = closed(code={"const": 200}, message={"const": "success"}, data=closed(balance=number("USD.")))

_ATTEMPT: Final = closed(
    "A call of an upstream.",
    number=integer(minimum=1),
    model=text(),
    started_ms=nullable(integer()),
    duration_ms=nullable(integer()),
    status=text(),
    http_status=nullable(integer()),
    error_code=nullable(text()),
    paid_by=text(),
    is_byok=boolean("Made with the organization's own provider key."),
    cost=usd(),
)
_VERDICT: Final = closed(
    "What a guardrail of the organization did.",
    rule=text(),
    name=text(),
    direction=one_of("input", "output"),
    action=one_of("blocked", "redacted", "logged", "unchecked"),
)
RECEIPT: Final = closed(
    "All of the arithmetic, exact: amounts are decimal strings in USD.",
    currency={"const": "USD"},
    price=nullable(
        closed(
            version=integer(),
            starts_at=moment(),
            variant=nullable(
                closed(min_input_tokens=integer(), service_tier=nullable(text()), window_utc=nullable(text()))
            ),
        )
    ),
    lines=nullable(
        listing(closed(item=text(), quantity=integer(), unit_price=usd(), per=integer(), amount=usd()))
    ),
    discounts=nullable(listing(closed(rule_id=nullable(text()), description=text(), amount=usd()))),
    sum=nullable(usd()),
    rounding=nullable(usd()),
    overage_not_billed=nullable(usd()),
    correction=nullable(usd()),
    cost=usd(),
    charged=usd(),
    byok=nullable(closed("The fee, where an own provider key served it.", fee_percent=text(), fee=usd())),
    cache=nullable(closed("Where the response cache answered it.", share_percent=text("Of the price."), saved=usd())),
    estimated=boolean(),
    rule=closed(id=text(), description=text()),
    attempts=listing(_ATTEMPT),
    reratings=listing(
        closed(id=text(), reason=text(), created_at=moment(), amount=usd(), overage_not_billed=usd())
    ),
    charged_after_reratings=usd(),
    hold=nullable(usd()),
    balance_before=nullable(usd()),
    balance_after=nullable(usd()),
)  # fmt: skip
_COUNTS: Final = (
    "generation_time", "duration", "tokens_prompt", "tokens_completion", "native_tokens_prompt",
    "native_tokens_completion", "native_tokens_reasoning", "native_tokens_cached", "native_tokens_completion_images",
    "num_media_prompt",
)  # fmt: skip
_INTEGERS: Final[dict[str, Any]] = {name: integer() for name in _COUNTS}
GENERATION: Final = closed(
    "OpenRouter's fields of a generation where they have a meaning here. Amounts in USD, times in milliseconds.",
    id=text(),
    request_id=text(),
    api_type=one_of("completions", "embeddings"),
    endpoint=nullable(text("Where it was asked: `chat/completions`.")),
    model=text(),
    created_at=moment(),
    streamed=boolean(),
    cancelled=boolean(),
    status=text(),
    http_status=integer(),
    error_code=nullable(text()),
    finish_reason=nullable(text()),
    native_finish_reason=nullable(text()),
    latency=nullable(integer()),
    **_INTEGERS,
    total_cost=number(),
    usage=number(),
    is_byok=boolean(),
    is_cached=boolean("The response cache answered it."),
    is_sandbox=boolean(),
    service_tier=nullable(text()),
    guardrails=listing(_VERDICT),
    key_id=text(),
    project_id=text(),
    receipt=ref("Receipt"),
)
SCHEMAS: Final[dict[str, Schema]] = {
    "Pricing": PRICING,
    "Model": MODEL,
    "ModelEndpoints": ENDPOINTS,
    "ModelList": MODEL_LIST,
    "AnthropicModel": ANTHROPIC_MODEL,
    "AnthropicModelList": ANTHROPIC_MODEL_LIST,
    "Error": ERROR,
    "AnthropicError": ANTHROPIC_ERROR,
    "ClientError": CLIENT_ERROR,
    "Key": closed(id=text(), data=KEY),
    "Credits": closed(data=CREDITS),
    "AccountBalance": BALANCE,
    "Generation": closed(data=GENERATION),
    "Receipt": RECEIPT,
    "ApiDocument": mapping({}, "This document."),
}
