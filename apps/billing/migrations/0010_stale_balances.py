"""Cached balances that must still be dropped."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("billing", "0009_hash_chain")]
    operations = [
        migrations.CreateModel(
            name="StaleBalance",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("organization_id", models.CharField(max_length=40)),
                ("since", models.DateTimeField(auto_now_add=True)),
            ],
        ),
    ]
