"""The rows of stored responses. What was said stands in them sealed; see `apps.responses.sealing`."""

from typing import Final

from django.db import models

from apps.core.ids import ID_LENGTH
from apps.core.models import OrganizationScoped

MAX_ITEM_ID: Final = 64


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


class Conversation(models.Model):
    """Items that their owner keeps as one object: put there, listed and deleted one by one, and gone on from.

    It shares its id with a chain, which says whose it is and how long it is kept, and has the responses that were made
    in it."""

    chain = models.OneToOneField(ResponseChain, primary_key=True, on_delete=models.CASCADE, related_name="conversation")
    sealed = models.BinaryField()
    """Its metadata."""
    items = models.PositiveIntegerField()
    """How many there are."""
    plain_bytes = models.BigIntegerField()
    """Size of all items when they are opened."""
    next_place = models.BigIntegerField()
    """Of the next item. Who adds some has the row of the chain locked."""
    created_at = models.DateTimeField()

    class Meta:
        verbose_name = "conversation"

    def __str__(self) -> str:
        return str(self.chain_id)


class ConversationItem(models.Model):
    """One item of a conversation."""

    pk = models.CompositePrimaryKey("conversation_id", "place")
    conversation = models.ForeignKey(
        Conversation, on_delete=models.CASCADE, related_name="+", db_index=False
    )  # the primary key begins with it
    place = models.BigIntegerField()
    """Where it stands among the others; places of deleted ones stay empty."""
    item_id = models.CharField(max_length=MAX_ITEM_ID)
    sealed = models.BinaryField()
    plain_bytes = models.BigIntegerField()

    class Meta:
        verbose_name = "item of a conversation"
        verbose_name_plural = "items of conversations"
        constraints = [models.UniqueConstraint(fields=["conversation", "item_id"], name="item_once")]

    def __str__(self) -> str:
        return self.item_id
