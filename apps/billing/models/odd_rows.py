"""Rows that periodic work on money failed for, and when they are tried again."""

from django.db import models
from django.db.models.functions import Now

from apps.core.ids import ID_LENGTH


class OddRow(models.Model):
    """Written when the work on one row failed, deleted when it succeeds. `subject` is the id of the row.

    It is named without a foreign key: the row is of whichever table that `work` is about."""

    work = models.CharField(max_length=40)
    subject = models.CharField(max_length=ID_LENGTH)
    tries = models.PositiveIntegerField(default=0)
    error = models.CharField(max_length=300)
    since = models.DateTimeField(db_default=Now())
    next_attempt_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["work", "subject"], name="odd_row_once")]

    def __str__(self) -> str:
        return f"{self.work} {self.subject}"
