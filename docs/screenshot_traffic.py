"""Three weeks of made-up requests for the pictures, written by the same functions that write real ones.

Run by docs/take_screenshots.py inside a throw-away installation, after django.setup()."""

import random
import time

from apps.accounts.models import Organization
from apps.billing.posting import post_batch
from apps.billing.rating import cost_nanos
from apps.catalog.contracts import OfferedModel
from apps.catalog.snapshot import load_snapshot
from apps.keys.models import ApiKey
from apps.usage.contracts import Outcome, RequestClosed, RequestOpened, TokenCounts
from apps.usage.recording import record

DAYS = 21
DAY_S = 86_400
REQUESTS_A_DAY = 1_200
MODELS = 6
FAILED_SHARE = 0.01


def main() -> None:
    dice = random.Random(7)  # noqa: S311 - the same pictures every time
    keys = list(ApiKey.objects.for_organization(Organization.objects.get(slug="demo").id))
    models = dice.sample(sorted(load_snapshot().models.values(), key=lambda model: model.id), MODELS)
    now = time.time()
    requests = []
    for day in range(DAYS):
        weekday = time.gmtime(now - day * DAY_S).tm_wday
        count = int(REQUESTS_A_DAY * (0.3 if weekday > 4 else 1.0) * (1 - day / (2 * DAYS)) * dice.uniform(0.8, 1.2))
        moments = [now - (day + dice.random()) * DAY_S for _ in range(count)]
        requests += [_request(dice, moment, dice.choice(keys), dice.choice(models)) for moment in moments]
    record(requests)
    while post_batch():
        pass


def _request(dice: random.Random, moment_s: float, key: ApiKey, model: OfferedModel) -> RequestClosed:
    price = model.price_at(time.time())
    if price is None:
        raise SystemExit(f"{model.id} has no price")
    has_failed = dice.random() < FAILED_SHARE
    prompt = dice.randint(200, 6_000)
    cached = dice.choice([0, 0, prompt // 2])
    tokens = TokenCounts(input=prompt - cached, cache_read=cached, output=dice.randint(50, 1_800))
    first_byte_ms = dice.randint(180, 900)
    opened = RequestOpened(
        request_id=f"req_{int(moment_s * 1000):012x}{dice.getrandbits(80):020x}",
        organization_id=key.organization_id,
        project_id=key.project_id,
        key_id=key.id,
        model=model.id,
        provider=model.targets[0].provider,
        upstream_model=model.targets[0].upstream_model,
        streamed=dice.random() < 0.7,
        price=price,
        input_estimate=prompt,
    )
    return RequestClosed(
        opened=opened,
        outcome=Outcome.FAILED if has_failed else Outcome.COMPLETED,
        http_status=502 if has_failed else 200,
        tokens=TokenCounts() if has_failed else tokens,
        cost_nanos=0 if has_failed else cost_nanos(tokens, price),
        estimated=False,
        duration_ms=first_byte_ms + tokens.output * 12,
        first_byte_ms=None if has_failed else first_byte_ms,
        finish_reason="" if has_failed else "stop",
        error_code="upstream_failed" if has_failed else "",
    )


if __name__ == "__main__":
    main()
