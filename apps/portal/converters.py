"""The ids that may stand in a URL: anything else is a 404 before any look-up."""

from django.urls.converters import StringConverter


class KeyId(StringConverter):
    regex = "key_[0-9a-f]{32}"


class GuardrailId(StringConverter):
    regex = "guard_[0-9a-f]{32}"


class AlertId(StringConverter):
    regex = "alert_[0-9a-f]{32}"


class EndpointId(StringConverter):
    regex = "hook_[0-9a-f]{32}"


class MessageId(StringConverter):
    regex = "msg_[0-9a-f]{32}"


class CredentialId(StringConverter):
    regex = "cred_[0-9a-f]{32}"


class RequestId(StringConverter):
    regex = "req_[0-9a-f]{32}"


class PaymentId(StringConverter):
    regex = "pay_[0-9a-f]{32}"


class CardId(StringConverter):
    regex = "card_[0-9a-f]{32}"


class InvoiceId(StringConverter):
    regex = "inv_[0-9a-f]{32}"


class CreditNoteId(StringConverter):
    regex = "cn_[0-9a-f]{32}"


class UtcMonth(StringConverter):
    regex = "20[0-9]{2}-(?:0[1-9]|1[0-2])"
