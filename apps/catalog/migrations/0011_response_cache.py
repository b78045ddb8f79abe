"""How answers of a model are kept, and what a kept one costs."""

import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('catalog', '0010_maintenance_windows'),
    ]

    operations = [
        migrations.AddField(
            model_name='model',
            name='cache_default',
            field=models.BooleanField(default=False, help_text='For requests that say nothing about the cache.', verbose_name='keep answers without being asked'),
        ),
        migrations.AddField(
            model_name='model',
            name='cache_share_ppm',
            field=models.IntegerField(blank=True, help_text='Parts per million of the price: 100000 is 10 %. Empty: as the installation says.', null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000)], verbose_name='price of a kept answer'),
        ),
        migrations.AddField(
            model_name='model',
            name='cache_ttl_s',
            field=models.IntegerField(blank=True, help_text='Seconds, where a request does not say. Empty: as the installation says.', null=True, validators=[django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(86400)], verbose_name='kept for'),
        ),
        migrations.AddConstraint(
            model_name='model',
            constraint=models.CheckConstraint(condition=models.Q(('cache_ttl_s__isnull', True), models.Q(('cache_ttl_s__gte', 1), ('cache_ttl_s__lte', 86400)), _connector='OR'), name='model_cache_ttl_s_in_range'),
        ),
        migrations.AddConstraint(
            model_name='model',
            constraint=models.CheckConstraint(condition=models.Q(('cache_share_ppm__isnull', True), models.Q(('cache_share_ppm__gte', 0), ('cache_share_ppm__lte', 1000000)), _connector='OR'), name='model_cache_share_ppm_in_range'),
        ),
    ]
