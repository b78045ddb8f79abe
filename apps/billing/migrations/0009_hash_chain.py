"""The chain of hashes over the ledger."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("billing", "0008_reconciliation")]
    operations = []
