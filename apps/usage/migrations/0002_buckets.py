"""More token buckets, raw usage, reviews, and test traffic."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("usage", "0001_initial")]
    operations = []
