"""Django for commands: set up before a subcommand's module, which may name models, is imported."""

import os

import django


def use_django() -> None:
    """Load the settings of this installation. Doing it again changes nothing."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "crun.settings")
    django.setup()
