"""Alerts, webhook endpoints and the brake."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("billing", "0006_invoices")]
    operations = []
