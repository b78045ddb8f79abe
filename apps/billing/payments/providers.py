"""Which providers there are, and whether this installation may use them. Nothing is kept between calls."""

from django.conf import settings

from apps.billing.payments.bank_transfer import BankTransfers
from apps.billing.payments.contracts import PaymentProvider, ProviderDisabled
from apps.billing.payments.stripe import StripeProvider, StripeSettings
from apps.core.errors import ConfigurationError, NotFound

STRIPE = StripeProvider.name
BANK_TRANSFER = BankTransfers.name


def cards_are_accepted() -> bool:
    """Whether customers can pay by themselves."""
    return bool(settings.STRIPE_SECRET_KEY)


def provider_named(name: str) -> PaymentProvider:
    """The provider, ready to be called.

    Raises ProviderDisabled when it has no credential here, ConfigurationError when its events could not be checked,
    and NotFound for a name that is none."""
    if name == BANK_TRANSFER:
        return BankTransfers()
    if name != STRIPE:
        raise NotFound(f"there is no payment provider {name!r}")
    if not settings.STRIPE_SECRET_KEY:
        raise ProviderDisabled("Payments by card are switched off here.")
    secrets = tuple(secret.strip() for secret in settings.STRIPE_WEBHOOK_SECRETS if secret.strip())
    if not secrets:
        raise ConfigurationError("CRUN_STRIPE_WEBHOOK_SECRETS is empty: anybody could forge payments")
    return StripeProvider(
        StripeSettings(settings.STRIPE_SECRET_KEY, secrets, settings.STRIPE_API_URL, settings.STRIPE_TIMEOUT_S)
    )
