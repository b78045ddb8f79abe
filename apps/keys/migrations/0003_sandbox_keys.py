"""Sandbox keys."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("keys", "0002_limits")]
    operations = []
