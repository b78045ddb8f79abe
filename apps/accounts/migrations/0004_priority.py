"""Whose requests are served longest under load."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('accounts', '0003_plan_brake'),
    ]

    operations = [
        migrations.AddField(
            model_name='organization',
            name='priority',
            field=models.PositiveSmallIntegerField(blank=True, choices=[(2, 'High'), (1, 'Normal'), (0, 'Low')], help_text="Whose requests are served longest by a gateway that cannot keep up. Empty: a key has its organization's, an organization its plan's, and that is normal. A key never has more than its organization.", null=True),
        ),
        migrations.AddField(
            model_name='plan',
            name='priority',
            field=models.PositiveSmallIntegerField(blank=True, choices=[(2, 'High'), (1, 'Normal'), (0, 'Low')], help_text="Whose requests are served longest by a gateway that cannot keep up. Empty: a key has its organization's, an organization its plan's, and that is normal. A key never has more than its organization.", null=True),
        ),
        migrations.AddConstraint(
            model_name='organization',
            constraint=models.CheckConstraint(condition=models.Q(('priority__isnull', True), ('priority__in', [0, 1, 2]), _connector='OR'), name='organization_priority_known'),
        ),
        migrations.AddConstraint(
            model_name='plan',
            constraint=models.CheckConstraint(condition=models.Q(('priority__isnull', True), ('priority__in', [0, 1, 2]), _connector='OR'), name='plan_priority_known'),
        ),
    ]
