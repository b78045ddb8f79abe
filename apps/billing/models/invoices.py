"""Invoices, credit notes and what they are made from. What is issued never changes: migration 0006 sees to it."""

from enum import StrEnum
from functools import partial

from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models.functions import Now

from apps.billing.models.ledger import ACTOR_LENGTH, KEY_LENGTH, REASON_LENGTH, LedgerTransaction
from apps.core.ids import ID_LENGTH, new_id
from apps.core.models import OrganizationScoped

NAME_LENGTH = 200
ADDRESS_LENGTH = 500
PREFIX_LENGTH = 20
DESCRIPTION_LENGTH = 300

new_invoice_id = partial(new_id, "inv")
new_credit_note_id = partial(new_id, "cn")

is_country = RegexValidator("^[A-Z]{2}$", "Two capital letters, such as DE or US (ISO 3166-1).")
is_region = RegexValidator("^[A-Z0-9]{1,3}$", "One to three capital letters or digits, such as CA for California.")
is_prefix = RegexValidator("^[A-Z0-9][A-Z0-9-]*$", "Capital letters, digits and hyphens, such as INV-.")


class InvoiceKind(StrEnum):
    """What an invoice is for."""

    PAYMENT = "payment"
    """Credit that was paid for: issued when the payment is there, and paid from the start."""
    USAGE = "usage"
    """What an organization on credit owes for a closed month."""
    MANUAL = "manual"
    """Written by the operator, for something beside the wallet."""


class InvoiceStatus(StrEnum):
    """What became of an invoice. It only goes forward."""

    ISSUED = "issued"
    PAID = "paid"
    VOID = "void"
    """Credit notes have taken all of it back."""


class LineKind(StrEnum):
    """What a line of an invoice says."""

    ITEM = "item"
    BALANCE = "balance"
    """What was paid from credit (below zero), or is carried over from earlier months (above)."""
    ROUNDING = "rounding"


def _choices(kinds: type[StrEnum]) -> list[tuple[str, str]]:
    return [(kind.value, kind.value.capitalize()) for kind in kinds]


class SellerProfile(models.Model):
    """Who issues the invoices: one row, kept by the operator. Without it no invoice is issued."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    name = models.CharField("legal name", max_length=NAME_LENGTH)
    address = models.TextField(max_length=ADDRESS_LENGTH)
    country = models.CharField(max_length=2, validators=[is_country], help_text="Two letters, such as DE or US.")
    tax_number = models.CharField(max_length=60, blank=True, help_text="VAT or other tax number, as printed.")
    email = models.EmailField(blank=True, help_text="Where customers ask about an invoice.")
    invoice_prefix = models.CharField(
        max_length=PREFIX_LENGTH,
        default="INV-",
        validators=[is_prefix],
        help_text="What stands before the number. A new prefix begins a new series at 1.",
    )
    credit_note_prefix = models.CharField(max_length=PREFIX_LENGTH, default="CN-", validators=[is_prefix])
    payment_days = models.PositiveSmallIntegerField(
        default=30, validators=[MaxValueValidator(365)], help_text="Until a monthly invoice is due."
    )
    footer = models.TextField(max_length=1000, blank=True, help_text="Below every document: bank account, register.")

    class Meta:
        verbose_name = verbose_name_plural = "seller"
        constraints = [
            models.CheckConstraint(condition=models.Q(id=1), name="seller_is_one"),
            models.CheckConstraint(
                condition=~models.Q(invoice_prefix=models.F("credit_note_prefix")), name="seller_prefixes_differ"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class BillingProfile(OrganizationScoped):
    """Whom an organization's invoices are made out to. Issued invoices keep what stood here then."""

    organization = models.OneToOneField(
        "accounts.Organization", on_delete=models.PROTECT, primary_key=True, related_name="billing_profile"
    )
    legal_name = models.CharField(max_length=NAME_LENGTH)
    address = models.TextField(max_length=ADDRESS_LENGTH, blank=True)
    country = models.CharField(max_length=2, blank=True, validators=[is_country])
    region = models.CharField(max_length=3, blank=True, validators=[is_region])
    tax_id = models.CharField(max_length=60, blank=True)
    emails = models.JSONField(default=list)
    """The addresses that get each invoice; empty for the organization's owners."""
    purchase_order = models.CharField(max_length=100, blank=True)

    def __str__(self) -> str:
        return self.legal_name


class TaxRate(models.Model):
    """A tax of a country or region from a day on. Never edited: a new rate is a row with a later first day."""

    country = models.CharField(
        max_length=2, blank=True, validators=[is_country], help_text="Empty: where no other rate applies."
    )
    region = models.CharField(max_length=3, blank=True, validators=[is_region], help_text="Empty: the whole country.")
    name = models.CharField(max_length=60, help_text="As printed, such as VAT.")
    percent = models.DecimalField(
        max_digits=7,
        decimal_places=4,
        validators=[MinValueValidator(0), MaxValueValidator(100)],
        help_text="Contained in what is paid. 0 ends a rate.",
    )
    valid_from = models.DateField(help_text="The first UTC day.")
    reverse_charge = models.BooleanField(
        default=False, help_text="Customers with a tax id owe the tax themselves: 0 %, and the invoice says so."
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    created_by = models.CharField(max_length=ACTOR_LENGTH, editable=False)

    class Meta:
        ordering = ["country", "region", "name", "-valid_from"]
        constraints = [
            models.UniqueConstraint(fields=["country", "region", "name", "valid_from"], name="tax_rate_unique"),
            models.CheckConstraint(
                condition=models.Q(percent__gte=0, percent__lte=100), name="tax_rate_is_a_percentage"
            ),
            models.CheckConstraint(
                condition=models.Q(region="") | ~models.Q(country=""), name="tax_rate_region_has_country"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.percent.normalize():f} %"


class DocumentSeries(models.Model):
    """The last number that was given out below a prefix. Its row lock makes numbers gapless."""

    prefix = models.CharField(max_length=PREFIX_LENGTH, primary_key=True)
    last_number = models.PositiveBigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.prefix}{self.last_number}"


class Invoice(OrganizationScoped):
    """An issued invoice in US dollars. Amounts are whole cents; `total_nanos` is what was rounded.

    Tax is contained in the total. `source_key` says what it is for, and makes it one invoice."""

    id = models.CharField(primary_key=True, max_length=ID_LENGTH, default=new_invoice_id, editable=False)
    organization = models.ForeignKey(
        "accounts.Organization", on_delete=models.PROTECT, related_name="invoices", db_index=False
    )
    number = models.CharField(max_length=40, unique=True)
    series = models.ForeignKey(DocumentSeries, on_delete=models.PROTECT, related_name="+", db_index=False)
    sequence = models.PositiveBigIntegerField()
    kind = models.CharField(max_length=20, choices=_choices(InvoiceKind))
    source_key = models.CharField(max_length=KEY_LENGTH, unique=True)
    month = models.DateField(null=True)
    seller = models.JSONField()
    buyer = models.JSONField()
    total_nanos = models.BigIntegerField()
    total_cents = models.BigIntegerField()
    tax_cents = models.BigIntegerField()
    note = models.CharField(max_length=REASON_LENGTH, blank=True)
    due_on = models.DateField(null=True)
    issued_at = models.DateTimeField(db_default=Now())
    actor = models.CharField(max_length=ACTOR_LENGTH)
    status = models.CharField(max_length=10, choices=_choices(InvoiceStatus))
    paid_at = models.DateTimeField(null=True)
    voided_at = models.DateTimeField(null=True)
    mail_claimed_at = models.DateTimeField(null=True)
    emailed_at = models.DateTimeField(null=True)
    mail_since = models.DateTimeField(null=True)
    """When somebody last asked to have it sent again: tries count from there."""

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["organization", "-id"], name="invoice_by_organization"),
            models.Index(fields=["id"], condition=models.Q(emailed_at=None), name="invoice_to_be_mailed"),
            models.Index(
                fields=["organization", "month"],
                condition=models.Q(status=InvoiceStatus.ISSUED),
                name="invoice_open_by_organization",
            ),
        ]
        constraints = [
            models.UniqueConstraint(fields=["series", "sequence"], name="invoice_number_unique"),
            models.CheckConstraint(
                condition=models.Q(total_cents__gte=0, tax_cents__gte=0, tax_cents__lte=models.F("total_cents")),
                name="invoice_amounts_make_sense",
            ),
        ]

    def __str__(self) -> str:
        return self.number

    @property
    def net_cents(self) -> int:
        return self.total_cents - self.tax_cents


class InvoiceLine(models.Model):
    """A line of an invoice: the exact amount in nano-USD, and cents. Both columns sum to the invoice's totals."""

    id = models.BigAutoField(primary_key=True)
    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="lines", db_index=False)
    position = models.PositiveIntegerField()
    kind = models.CharField(max_length=20, choices=_choices(LineKind))
    description = models.CharField(max_length=DESCRIPTION_LENGTH)
    amount_nanos = models.BigIntegerField()
    amount_cents = models.BigIntegerField()

    class Meta:
        ordering = ["invoice", "position"]
        constraints = [models.UniqueConstraint(fields=["invoice", "position"], name="invoice_line_unique")]

    def __str__(self) -> str:
        return self.description


class InvoiceTax(models.Model):
    """A tax that an invoice's total contains."""

    id = models.BigAutoField(primary_key=True)
    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="taxes", db_index=False)
    position = models.PositiveIntegerField()
    name = models.CharField(max_length=60)
    percent = models.DecimalField(max_digits=7, decimal_places=4)
    reverse_charge = models.BooleanField()
    base_cents = models.BigIntegerField()
    tax_cents = models.BigIntegerField()

    class Meta:
        ordering = ["invoice", "position"]
        constraints = [models.UniqueConstraint(fields=["invoice", "position"], name="invoice_tax_unique")]

    def __str__(self) -> str:
        return f"{self.name} {self.percent.normalize():f} %"


class CreditNote(OrganizationScoped):
    """Takes back a part or all of an invoice: all of them together are never more than it."""

    id = models.CharField(primary_key=True, max_length=ID_LENGTH, default=new_credit_note_id, editable=False)
    organization = models.ForeignKey(
        "accounts.Organization", on_delete=models.PROTECT, related_name="credit_notes", db_index=False
    )
    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="credit_notes")
    number = models.CharField(max_length=40, unique=True)
    series = models.ForeignKey(DocumentSeries, on_delete=models.PROTECT, related_name="+", db_index=False)
    sequence = models.PositiveBigIntegerField()
    idempotency_key = models.CharField(max_length=KEY_LENGTH, unique=True)
    amount_cents = models.BigIntegerField()
    tax_cents = models.BigIntegerField()
    reason = models.CharField(max_length=REASON_LENGTH)
    transaction = models.OneToOneField(LedgerTransaction, null=True, on_delete=models.PROTECT, related_name="+")
    actor = models.CharField(max_length=ACTOR_LENGTH)
    issued_at = models.DateTimeField(db_default=Now())
    mail_claimed_at = models.DateTimeField(null=True)
    emailed_at = models.DateTimeField(null=True)
    mail_since = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["organization", "-id"], name="credit_note_by_organization"),
            models.Index(fields=["id"], condition=models.Q(emailed_at=None), name="credit_note_to_be_mailed"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["series", "sequence"], name="credit_note_number_unique"),
            models.CheckConstraint(
                condition=models.Q(amount_cents__gt=0, tax_cents__gte=0, tax_cents__lte=models.F("amount_cents")),
                name="credit_note_amounts_make_sense",
            ),
            models.CheckConstraint(condition=~models.Q(reason=""), name="credit_note_has_reason"),
        ]

    def __str__(self) -> str:
        return self.number

    @property
    def net_cents(self) -> int:
        return self.amount_cents - self.tax_cents
