"""The rows of stored responses. What was said stands in them sealed; see `apps.responses.sealing`."""

from django.db import models

from apps.core.ids import ID_LENGTH
from apps.core.models import OrganizationScoped


class ResponseChain(OrganizationScoped):
    """A response that went on from nothing, and all that went on from it: they are kept for as long as the last one.

    Its id is that of the first. Whoever reads asks for organization, project and side (sandbox or live) at once."""

    id = models.CharField(primary_key=True, max_length=ID_LENGTH)
    organization = models.ForeignKey(
        "accounts.Organization", on_delete=models.CASCADE, related_name="+", db_index=False
    )
    project = models.ForeignKey("accounts.Project", on_delete=models.CASCADE, related_name="+")
    sandbox = models.BooleanField()
    bytes = models.BigIntegerField()
    """Of all its responses, sealed."""
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        verbose_name = "chain of responses"
        verbose_name_plural = "chains of responses"
        indexes = [models.Index(fields=["organization", "expires_at"], name="chain_by_age")]

    def __str__(self) -> str:
        return self.id


class StoredResponse(models.Model):
    """One response: what it was asked, what it answered."""

    id = models.CharField(primary_key=True, max_length=ID_LENGTH)
    chain = models.ForeignKey(ResponseChain, on_delete=models.CASCADE, related_name="responses")
    previous_id = models.CharField(max_length=ID_LENGTH, blank=True)
    """The response that it goes on from, which may be gone; "" for none."""
    sealed = models.BinaryField()
    plain_bytes = models.BigIntegerField()
    """Its size when it is opened."""
    created_at = models.DateTimeField()

    class Meta:
        verbose_name = "stored response"

    def __str__(self) -> str:
        return self.id
