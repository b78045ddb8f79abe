"""The checker: truth log, client's history, records and ledger of the same requests must tell the same story."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from apps.usage.contracts import RequestClosed, RequestOpened
from apps.usage.journal import SEGMENT_PATTERN, read_entries
from crun.sandbox.truth import TruthEntry
from tests.acceptance.asking import Answer
from tests.acceptance.records import Record, cost_usd, difference, nanos
from tests.acceptance.upstream import PRICE
from tests.money import dollars
from tests.money.stage import Stage

COME_BACK = (503, "store_unavailable")


@dataclass
class Verdict:
    """What was wrong, and how much was looked at. `lost`, `doubled` and `over_billed` are the figures to publish."""

    requests: int = 0
    served: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    over_billed: list[str] = field(default_factory=list)
    under_billed: list[str] = field(default_factory=list)
    contradicted: list[str] = field(default_factory=list)
    books: list[str] = field(default_factory=list)

    @property
    def problems(self) -> dict[str, list[str]]:
        names = ("lost", "doubled", "over_billed", "under_billed", "contradicted", "books")
        return {name: found for name in names if (found := getattr(self, name))}

    def __str__(self) -> str:
        return (
            f"{self.requests} requests, {self.served} served: {len(self.lost)} lost, {len(self.doubled)} doubled,"
            f" {len(self.over_billed)} over-billed"
        )


def check(
    stage: Stage,
    owner: str,
    *,
    mark: tuple[str, int],
    answers: Sequence[Answer],
    credit_nanos: int,
    others: Collection[str] = (),
) -> Verdict:
    """Compare everything about the requests of one organization since `mark`, once all is shipped and posted.

    `mark` is a request id and a number of the truth log from before; `credit_nanos` is all that it was ever given;
    `others` are requests of other organizations in the same time."""
    told = {name: entry for name, entry in stage.truth.ended_since(mark[1]).items() if name not in others}
    rows = records_of(stage, owner)
    records = {str(row["request_id"]): Record(row) for row in rows}
    verdict = Verdict(requests=len(answers), served=len(told))
    counted = Counter(str(row["request_id"]) for row in rows)
    verdict.doubled += [name for name, number in counted.items() if number > 1]
    verdict.lost += [f"{name}: {entry}" for name, entry in told.items() if name not in records]
    for name, record in records.items():
        _check_record(record, told.get(name), verdict)
    for answer in answers:
        _check_answer(answer, records, verdict)
    _check_books(stage, owner, records, credit_nanos, verdict=verdict)
    return verdict


def records_of(stage: Stage, owner: str) -> list[dict[str, Any]]:
    """Every row of the organization's usage; without the primary key's help, so that a double would be seen."""
    with stage.database() as database:
        return database.execute("SELECT * FROM usage_usagerecord WHERE organization_id = %s", [owner]).fetchall()


def _check_record(record: Record, told: TruthEntry | None, verdict: Verdict) -> None:
    """A record is what the upstream did, by the published table of broken requests."""
    about = f"{record.request_id} {record.status}: {record.cost_nanos} nanos, {told}"
    price = (
        {name: Decimal(usd) for name, usd in zip(("input", "output"), dollars.PRICES[record.model], strict=True)}
        if (record.model in dollars.PRICES)
        else PRICE
    )
    cost = nanos(cost_usd(record, price))
    if record.cost_nanos != cost:
        verdict.contradicted.append(f"{about}: is not what its tokens cost")
    if told is None:
        if record.cost_nanos or record.status == "completed":
            verdict.over_billed.append(f"{about}: no upstream served it")
        return
    if told.attempts != 1:
        verdict.contradicted.append(f"{about}: {told.attempts} upstream calls")
    if record.status == "completed" and not record.estimated:
        found = {name: pair for name, pair in difference(record, told).items() if name != "cost_nanos"}
        if found:
            verdict.over_billed.append(f"{about}: {found}")
        return
    if record.completion_tokens > told.tokens and record.completion_tokens > (told.completion_tokens or 0):
        verdict.over_billed.append(f"{about}: {record.completion_tokens} tokens out")
    if record.prompt_tokens > told.prompt_tokens:
        verdict.over_billed.append(f"{about}: {record.prompt_tokens} tokens in")


def _check_answer(answer: Answer, records: Mapping[str, Record], verdict: Verdict) -> None:
    """What the client saw is what it is billed for: no less than it got, exactly what it was told."""
    if answer.status in (0, 503):
        if answer.status == 503 and (answer.status, answer.error.get("code")) != COME_BACK:
            verdict.contradicted.append(f"{answer.request_id}: {answer.body!r}")
        return
    record = records.get(answer.request_id)
    if answer.status == 502 and record is not None and (record.status, record.cost_nanos) == ("failed", 0):
        return
    if answer.status != 200:
        verdict.contradicted.append(f"{answer.request_id}: {answer.status} {answer.body!r}")
        return
    if record is None:
        verdict.lost.append(f"{answer.request_id}: the client has an answer")
        return
    if answer.is_whole:
        told_nanos = round(answer.usage["cost"] * 10**9)
        if (record.status, record.cost_nanos) != ("completed", told_nanos):
            verdict.contradicted.append(f"{answer.request_id}: told {told_nanos}, {record.status} {record.cost_nanos}")
    elif got_output(answer) and not record.completion_tokens:
        verdict.under_billed.append(f"{answer.request_id}: {record.status}, free although output was delivered")


def got_output(answer: Answer) -> bool:
    """Whether a stream brought its client anything of the answer."""
    text = answer.body[: answer.body.rfind(b"\n\n") + 2]
    return any(
        chunk["choices"][0]["delta"].get("content") for chunk in Answer(body=text).chunks if chunk.get("choices")
    )


def _check_books(
    stage: Stage, owner: str, records: Mapping[str, Record], credit_nanos: int, *, verdict: Verdict
) -> None:
    """Credit less the costs of all records is the balance; every proof of the ledger holds; nothing waits."""
    spent = sum(record.cost_nanos for record in records.values())
    balance = stage.ask("balance", owner)
    if balance != credit_nanos - spent:
        verdict.books.append(f"the balance is {balance}, {credit_nanos} less {spent} was expected")
    verdict.books += [f"{name}: {detail}" for name, detail in stage.ask("failed_proofs")]
    with stage.database() as database:
        waiting = database.execute("SELECT count(*) AS number FROM usage_unpostedusage").fetchone()
    if waiting is None or waiting["number"]:
        verdict.books.append(f"not posted: {waiting}")


def held_by(stage: Stage, owner: str) -> dict[str, int]:
    """What running requests hold in Redis: request id to nanos."""
    with stage.store() as client:
        holds = client.hgetall(f"crun:{{{owner}}}:holds")
    return {name.decode(): int(packed.partition(b"|")[0]) for name, packed in holds.items()}


def leased_by(stage: Stage, owner: str) -> int:
    """Places among the running requests that are taken in Redis, over all owners with such a limit."""
    with stage.store() as client:
        return sum(int(client.zcard(name)) for name in client.keys(f"crun:{{{owner}}}:lease:*"))


def journal_entries(stage: Stage) -> tuple[list[RequestOpened], list[RequestClosed]]:
    """What stands in all journals now: opened and closed requests."""
    opened: list[RequestOpened] = []
    closed: list[RequestClosed] = []
    for segment in sorted(stage.journals.glob(f"*/{SEGMENT_PATTERN}")):
        for entry, _ in read_entries(segment.read_bytes()):
            if isinstance(entry, RequestOpened):
                opened.append(entry)
            elif isinstance(entry, RequestClosed):
                closed.append(entry)
    return opened, closed
