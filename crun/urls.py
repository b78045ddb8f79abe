"""URLs of the web process. The gateway's routes are listed too, for the API document and Django's test client."""

from django.urls import include, path

from apps.api.metrics import metrics
from apps.api.payments import stripe_webhook

urlpatterns = [
    path("api/v1/", include("apps.gateway.urls")),
    path("accounts/", include("allauth.urls")),
    path("console/", include("apps.console.urls")),
    path("metrics", metrics),
    path("webhooks/stripe", stripe_webhook),
    path("", include("apps.portal.urls")),
]
