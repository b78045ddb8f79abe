"""Models that are dear enough for a dollar to end, and what a refusal for want of money looks like."""

from decimal import Decimal

from tests.acceptance.asking import Answer
from tests.acceptance.upstream import API_KEY, TruthUpstream
from tests.money.stage import USD

DEAR = "dollar-dear"
"""A tenth of a cent a token: 500 short streams with `max_tokens` are worth several dollars."""
LONG = "dollar-long"
"""A hundredth of a cent a token: 500 streams of 40 tokens without `max_tokens` are worth two."""
PRICES = {DEAR: ("0.1", "1000"), LONG: ("0.1", "100")}


def catalog(upstream: TruthUpstream) -> str:
    """The document that offers both on an upstream of their own name."""
    models = "".join(
        f"""
  - id: {name}
    vendor: Truth
    context_length: 100000
    max_output_tokens: 8192
    routes: [{{provider: dollars, upstream_model: sandbox-echo}}]
    prices: [{{from: "2026-01-01T00:00:00Z", input: "{price[0]}", output: "{price[1]}"}}]"""
        for name, price in PRICES.items()
    )
    provider = f'{{id: dollars, dialect: openai, base_url: "{upstream.url}", api_key: "{API_KEY}"}}'
    return f"providers:\n  - {provider}\nmodels:{models}"


def is_refused(answer: Answer) -> bool:
    """Refused because money is short, and for no other reason."""
    return answer.status in (402, 429) and answer.error.get("type") == "insufficient_quota"


def left_nanos(answer: Answer) -> int:
    """What the answer says was left: of balance and budgets the tightest, less what is held."""
    return int(Decimal(answer.headers["x-crun-budget-remaining"]) * USD)
