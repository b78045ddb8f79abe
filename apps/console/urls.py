"""URLs of the operator console; namespace `console`."""

from django.urls import path

from apps.console.site import console_site

urlpatterns = [path("", console_site.urls)]
