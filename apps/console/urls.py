"""URLs of the operator console; namespace `console`. Its pages are loaded here: most processes serve none."""

from django.contrib.admin import autodiscover
from django.urls import path

from apps.console.site import console_site

autodiscover()
urlpatterns = [path("", console_site.urls)]
