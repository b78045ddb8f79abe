"""UTC months, as statements and monthly invoices count them. Pure."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Self

_WRITTEN = re.compile(r"(20\d\d)-(0[1-9]|1[0-2])")


@dataclass(frozen=True, order=True)
class Month:
    """A month of a year, such as 2026-11."""

    year: int
    number: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """`2026-11` of this century. Raises ValueError for anything else."""
        match = _WRITTEN.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no month such as 2026-11")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of(cls, moment: datetime | date) -> Self:
        """The month in which a moment lies in UTC, or a day."""
        day = moment.astimezone(UTC) if isinstance(moment, datetime) else moment
        return cls(day.year, day.month)

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.number:02d}"

    @property
    def start(self) -> datetime:
        """Its first moment."""
        return datetime(self.year, self.number, 1, tzinfo=UTC)

    @property
    def end(self) -> datetime:
        """The first moment of the next month."""
        return self.next().start

    @property
    def first_day(self) -> date:
        return self.start.date()

    @property
    def name(self) -> str:
        """`November 2026`."""
        return f"{self.start:%B %Y}"

    def next(self) -> "Month":
        return self.plus(1)

    def previous(self) -> "Month":
        return self.plus(-1)

    def plus(self, months: int) -> "Month":
        """The month so many later, or earlier when below zero."""
        year, index = divmod(self.year * 12 + self.number - 1 + months, 12)
        return Month(year, index + 1)
