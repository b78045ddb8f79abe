"""What proves the books from outside their own rules: the chain of hashes, runs of the proofs, vendors' own figures."""

from enum import StrEnum
from functools import partial

from django.db import models
from django.db.models.functions import Now

from apps.core.ids import ID_LENGTH, new_id

OPERATOR_CHAIN = ""
"""The chain of transactions that belong to no organization."""
DETAIL_LENGTH = 2_000
LINE_ITEM_LENGTH = 200
VENDOR_MODEL_LENGTH = 200
FILE_NAME_LENGTH = 200

new_run_id = partial(new_id, "recon")


class LedgerLink(models.Model):
    """One transaction's place in the chain of its wallet: a hash over itself, its lines and the hash before it.

    Written by the database at COMMIT (migration 0009) and never changed. `chain` is the organization's id."""

    transaction = models.OneToOneField(
        "billing.LedgerTransaction", primary_key=True, on_delete=models.DO_NOTHING, db_constraint=False,
        related_name="link",
    )  # fmt: skip
    chain = models.CharField(max_length=ID_LENGTH)
    position = models.BigIntegerField()
    previous_hash = models.BinaryField()
    hash = models.BinaryField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["chain", "position"], name="ledger_link_place_unique")]

    def __str__(self) -> str:
        return f"{self.chain or 'operator'} {self.position}"


class LedgerAnchor(models.Model):
    """How far a chain had come when it was last proved: what was seen once must stay."""

    chain = models.CharField(primary_key=True, max_length=ID_LENGTH)
    position = models.BigIntegerField()
    hash = models.BinaryField()
    seen_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.chain or 'operator'} {self.position}"


class RunCause(StrEnum):
    """Why the proofs were run."""

    NIGHTLY = "nightly"
    CONSOLE = "console"
    SHELL = "shell"


class ReconciliationRun(models.Model):
    """All proofs at one time. `account_totals` are the sums of all lines by kind of account, in nano-USD.

    A row that has not started is a wish, and work for the worker. `finished_at` stays empty when its process died."""

    id = models.CharField(primary_key=True, max_length=ID_LENGTH, default=new_run_id, editable=False)
    cause = models.CharField(max_length=10, choices=[(cause.value, cause.value.title()) for cause in RunCause])
    actor = models.CharField(max_length=254)
    asked_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    holds = models.BooleanField(null=True)
    account_totals = models.JSONField(default=dict)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.id


class ProofResult(models.Model):
    """What one proof found in one run."""

    run = models.ForeignKey(ReconciliationRun, on_delete=models.CASCADE, related_name="results")
    place = models.PositiveSmallIntegerField()
    name = models.CharField(max_length=100)
    holds = models.BooleanField()
    detail = models.CharField(max_length=DETAIL_LENGTH, blank=True)
    seconds = models.FloatField()

    class Meta:
        ordering = ["run", "place"]
        constraints = [models.UniqueConstraint(fields=["run", "name"], name="proof_result_once_a_run")]

    def __str__(self) -> str:
        return self.name


class VendorReport(models.Model):
    """A file with a vendor's own figures that was imported; it outlives its provider. `digest` is its SHA-256.

    Of its rows, `new_rows` were not known before and `changed_rows` replaced what an older file had said."""

    digest = models.CharField(primary_key=True, max_length=64, editable=False)
    provider = models.ForeignKey("catalog.Provider", on_delete=models.DO_NOTHING, db_constraint=False, related_name="+")
    name = models.CharField(max_length=FILE_NAME_LENGTH)
    first_day = models.DateField()
    last_day = models.DateField()
    new_rows = models.PositiveIntegerField()
    changed_rows = models.PositiveIntegerField()
    known_rows = models.PositiveIntegerField()
    imported_at = models.DateTimeField(db_default=Now())
    imported_by = models.CharField(max_length=254)

    class Meta:
        ordering = ["-imported_at"]

    def __str__(self) -> str:
        return self.name


class VendorCost(models.Model):
    """What a vendor says of one day, model and line of its bill. Null means: not in its report, which differs from 0.

    `input_tokens` has no cached ones in it. The newest report wins: vendors correct the latest days."""

    provider = models.ForeignKey("catalog.Provider", on_delete=models.DO_NOTHING, db_constraint=False, related_name="+")
    day = models.DateField()
    model = models.CharField(max_length=VENDOR_MODEL_LENGTH)
    line_item = models.CharField(max_length=LINE_ITEM_LENGTH)
    cost_nanos = models.BigIntegerField(null=True)
    input_tokens = models.PositiveBigIntegerField(null=True)
    cache_read_tokens = models.PositiveBigIntegerField(null=True)
    cache_write_tokens = models.PositiveBigIntegerField(null=True)
    output_tokens = models.PositiveBigIntegerField(null=True)
    report = models.ForeignKey(VendorReport, on_delete=models.PROTECT, related_name="rows")

    class Meta:
        ordering = ["-day", "provider", "model", "line_item"]
        constraints = [
            models.UniqueConstraint(fields=["provider", "day", "model", "line_item"], name="vendor_cost_row_unique")
        ]

    def __str__(self) -> str:
        return f"{self.day} {self.model} {self.line_item}"
