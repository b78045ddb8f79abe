"""Routes of the customer portal."""

from django.urls import path, register_converter

from apps.portal.converters import KeyId, RequestId
from apps.portal.views import billing, keys, models, organizations, overview, settings, usage

register_converter(KeyId, "key_id")
register_converter(RequestId, "request_id")

app_name = "portal"

urlpatterns = [
    path("", organizations.start, name="start"),
    path("organizations/new/", organizations.create, name="create_organization"),
    path("o/<slug:slug>/", overview.overview, name="overview"),
    path("o/<slug:slug>/keys/", keys.keys, name="keys"),
    path("o/<slug:slug>/keys/<key_id:key_id>/revoke/", keys.revoke, name="revoke_key"),
    path("o/<slug:slug>/models/", models.models, name="models"),
    path("o/<slug:slug>/usage/", usage.usage, name="usage"),
    path("o/<slug:slug>/usage/export.csv", usage.export, name="export_usage"),
    path("o/<slug:slug>/usage/<request_id:request_id>/", usage.request_detail, name="usage_request"),
    path("o/<slug:slug>/billing/", billing.billing, name="billing"),
    path("o/<slug:slug>/settings/", settings.settings, name="settings"),
    path("o/<slug:slug>/settings/projects/", settings.create_project, name="create_project"),
]
