"""Price books and re-ratings."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("billing", "0003_usage_before_the_ledger")]
    operations = []
