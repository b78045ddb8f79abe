"""Routes of the customer portal."""

from django.urls import path, register_converter

from apps.portal.converters import (
    AlertId,
    CardId,
    CredentialId,
    CreditNoteId,
    EndpointId,
    GuardrailId,
    InvoiceId,
    KeyId,
    MessageId,
    PaymentId,
    RequestId,
    UtcMonth,
)
from apps.portal.views import (
    alerts,
    billing,
    guardrails,
    invoices,
    key_brakes,
    keys,
    models,
    organizations,
    overview,
    payments,
    provider_keys,
    settings,
    usage,
    webhooks,
)

register_converter(AlertId, "alert_id")
register_converter(GuardrailId, "guardrail_id")
register_converter(EndpointId, "endpoint_id")
register_converter(CredentialId, "credential_id")
register_converter(MessageId, "message_id")
register_converter(KeyId, "key_id")
register_converter(RequestId, "request_id")
register_converter(PaymentId, "payment_id")
register_converter(CardId, "card_id")
register_converter(InvoiceId, "invoice_id")
register_converter(CreditNoteId, "credit_note_id")
register_converter(UtcMonth, "utc_month")

app_name = "portal"

urlpatterns = [
    path("", organizations.start, name="start"),
    path("organizations/new/", organizations.create, name="create_organization"),
    path("o/<slug:slug>/", overview.overview, name="overview"),
    path("o/<slug:slug>/keys/", keys.keys, name="keys"),
    path("o/<slug:slug>/keys/<key_id:key_id>/revoke/", keys.revoke, name="revoke_key"),
    path("o/<slug:slug>/keys/<key_id:key_id>/resume/", key_brakes.resume, name="resume_key"),
    path("o/<slug:slug>/keys/<key_id:key_id>/brake/", key_brakes.key_brake, name="key_brake"),
    path("o/<slug:slug>/alerts/", alerts.alerts, name="alerts"),
    path("o/<slug:slug>/alerts/settings/", alerts.alert_settings, name="alert_settings"),
    path("o/<slug:slug>/alerts/acknowledge/", alerts.acknowledge_all, name="acknowledge_all_alerts"),
    path("o/<slug:slug>/alerts/<alert_id:alert_id>/acknowledge/", alerts.acknowledge, name="acknowledge_alert"),
    path("o/<slug:slug>/settings/responses/erase/", settings.erase_responses, name="erase_responses"),
    path("o/<slug:slug>/webhooks/", webhooks.webhooks, name="webhooks"),
    path("o/<slug:slug>/webhooks/<endpoint_id:endpoint_id>/", webhooks.webhook, name="webhook"),
    path("o/<slug:slug>/webhooks/<endpoint_id:endpoint_id>/secret/", webhooks.rotate_webhook, name="rotate_webhook"),
    path("o/<slug:slug>/webhooks/<endpoint_id:endpoint_id>/switch/", webhooks.switch_webhook, name="switch_webhook"),
    path("o/<slug:slug>/webhooks/<endpoint_id:endpoint_id>/test/", webhooks.send_test_event, name="test_webhook"),
    path("o/<slug:slug>/webhooks/<endpoint_id:endpoint_id>/delete/", webhooks.delete_webhook, name="delete_webhook"),
    path(
        "o/<slug:slug>/webhooks/messages/<message_id:message_id>/replay/",
        webhooks.replay_webhook,
        name="replay_webhook",
    ),
    path("o/<slug:slug>/provider-keys/", provider_keys.provider_keys, name="provider_keys"),
    path("o/<slug:slug>/provider-keys/<credential_id:credential_id>/", provider_keys.provider_key, name="provider_key"),
    path(
        "o/<slug:slug>/provider-keys/<credential_id:credential_id>/key/",
        provider_keys.rotate_provider_key,
        name="rotate_provider_key",
    ),
    path(
        "o/<slug:slug>/provider-keys/<credential_id:credential_id>/switch/",
        provider_keys.switch_provider_key,
        name="switch_provider_key",
    ),
    path(
        "o/<slug:slug>/provider-keys/<credential_id:credential_id>/delete/",
        provider_keys.delete_provider_key,
        name="delete_provider_key",
    ),
    path("o/<slug:slug>/guardrails/", guardrails.guardrails, name="guardrails"),
    path("o/<slug:slug>/guardrails/new/<slug:kind>/", guardrails.new_guardrail, name="new_guardrail"),
    path("o/<slug:slug>/guardrails/<guardrail_id:guardrail_id>/", guardrails.guardrail, name="guardrail"),
    path(
        "o/<slug:slug>/guardrails/<guardrail_id:guardrail_id>/mode/",
        guardrails.switch_guardrail,
        name="switch_guardrail",
    ),
    path(
        "o/<slug:slug>/guardrails/<guardrail_id:guardrail_id>/delete/",
        guardrails.delete_guardrail,
        name="delete_guardrail",
    ),
    path("o/<slug:slug>/models/", models.models, name="models"),
    path("o/<slug:slug>/usage/", usage.usage, name="usage"),
    path("o/<slug:slug>/usage/export.csv", usage.export, name="export_usage"),
    path("o/<slug:slug>/usage/<request_id:request_id>/", usage.request_detail, name="usage_request"),
    path("o/<slug:slug>/billing/", billing.billing, name="billing"),
    path("o/<slug:slug>/billing/credit/", payments.add_credit, name="add_credit"),
    path("o/<slug:slug>/billing/payments/<payment_id:payment_id>/", payments.payment, name="payment"),
    path("o/<slug:slug>/billing/auto-top-up/", payments.auto_top_up, name="auto_top_up"),
    path("o/<slug:slug>/billing/cards/<card_id:card_id>/remove/", payments.remove_saved_card, name="remove_saved_card"),
    path("o/<slug:slug>/billing/invoices/", invoices.invoices, name="invoices"),
    path("o/<slug:slug>/billing/invoices/profile/", invoices.billing_profile, name="billing_profile"),
    path("o/<slug:slug>/billing/invoices/<invoice_id:invoice_id>/", invoices.invoice, name="invoice"),
    path(
        "o/<slug:slug>/billing/invoices/<invoice_id:invoice_id>/invoice.pdf", invoices.invoice_pdf, name="invoice_pdf"
    ),
    path(
        "o/<slug:slug>/billing/invoices/credit-notes/<credit_note_id:credit_note_id>/",
        invoices.credit_note,
        name="credit_note",
    ),
    path(
        "o/<slug:slug>/billing/invoices/credit-notes/<credit_note_id:credit_note_id>/credit-note.pdf",
        invoices.credit_note_pdf,
        name="credit_note_pdf",
    ),
    path("o/<slug:slug>/billing/statements/<utc_month:month>/", invoices.statement, name="statement"),
    path(
        "o/<slug:slug>/billing/statements/<utc_month:month>/statement.pdf",
        invoices.statement_pdf,
        name="statement_pdf",
    ),
    path(
        "o/<slug:slug>/billing/statements/<utc_month:month>/statement.csv",
        invoices.statement_csv,
        name="statement_csv",
    ),
    path("o/<slug:slug>/settings/", settings.settings, name="settings"),
    path("o/<slug:slug>/settings/data/", settings.data_policy, name="data_policy"),
    path("o/<slug:slug>/settings/projects/", settings.create_project, name="create_project"),
]
