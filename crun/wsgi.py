"""WSGI entry for installations that serve the web pages apart from the gateway."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "crun.settings")

application = get_wsgi_application()
