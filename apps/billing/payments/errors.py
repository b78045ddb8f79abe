"""Why an event or an order does not become money."""

from apps.core.errors import DomainError


class NotYet(DomainError):
    """It speaks of something that has not happened here yet: park it and try again."""

    code = "payment_not_yet"


class Mismatch(DomainError):
    """It contradicts our own record of the payment: nothing is credited."""

    code = "payment_mismatch"
