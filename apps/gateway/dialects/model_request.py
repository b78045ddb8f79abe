"""What admission, routing and dispatch read of a request to a model, of whichever endpoint it is. Pure."""

from collections.abc import Iterator
from typing import Any, Protocol

from apps.catalog.contracts import IMAGE_TOKENS, OfferedModel
from apps.gateway.dialects.texts import TextPlace
from apps.policies.guarding import Guarding


class ModelRequest(Protocol):
    """A checked request. `ChatRequest` and `EmbeddingsRequest` are the two kinds that there are."""

    model: str
    body: dict[str, Any]
    """The parsed object, which is written anew for the upstream."""
    body_bytes: int
    text_tokens: int | None
    """No more tokens than this are in its text, where somebody counted."""

    guarding: Guarding | None
    """What guards it and its answer; None where its organization has no guardrails."""

    @property
    def pinned(self) -> tuple[str, str] | None:
        """Provider and upstream model of the route that answered the turn before, where that is known."""

    @property
    def stream(self) -> bool: ...

    @property
    def choices(self) -> int:
        """How many answers it asks for; the output is counted for each."""

    @property
    def inputs(self) -> int:
        """How many inputs it has, each of which may fill the model's context."""

    @property
    def asked_output(self) -> int | None:
        """The output tokens that the caller allows each choice; None when it set no bound."""

    @property
    def asked_tier(self) -> str:
        """The service tier that the caller asks for; "" for the standard one."""

    @property
    def images(self) -> int:
        """How many images it brings."""

    @property
    def text_bytes(self) -> int:
        """The size of its text, as JSON."""

    @property
    def content_field(self) -> str:
        """The field that is wrong when its text is too long."""

    @property
    def endpoint(self) -> str:
        """Where it was asked, as in its path: `chat/completions`."""

    def check_model(self, model: OfferedModel) -> None:
        """Raises GatewayError (400) for a model that does not do this, or does not take what is in it."""

    def input_bound(
        self, context_length: int, *, image_tokens: int = IMAGE_TOKENS, text_tokens: int | None = None
    ) -> int:
        """No more input tokens than this can be billed, by a model of which no image has more than `image_tokens`; with
        `text_tokens`, if its text had no more than those."""

    def input_estimate(self) -> int:
        """Its input tokens by our own estimate, for when nobody tells."""

    def longest_text(self) -> str:
        """The longest text of it that must fit into the model's context."""

    def countable_text(self) -> str:
        """Everything in it that is billed as text."""

    def text_places(self) -> Iterator[TextPlace]:
        """All text in it that goes to an upstream, where it stands."""

    @property
    def has_unreadable_text(self) -> bool:
        """Whether there is text in it that `text_places` cannot show, such as token ids."""

    def texts_changed(self) -> None:
        """Texts were put in place of others: count what depends on them anew."""

    def cut_output(self, tokens: int) -> None:
        """Let each choice have no more than so many output tokens. Only for a request whose caller set no bound."""
