"""The numbered sentences below the tables of docs/conformance.md."""

from collections.abc import Iterator


class Notes:
    """The sentences of refusals, each with its number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, sentence: str) -> int:
        return self._numbers.setdefault(sentence, len(self._numbers) + 1)

    def lines(self) -> Iterator[str]:
        return (f"{number}. {sentence}" for sentence, number in self._numbers.items())
