"""The error tree of the domain; each leaf has a stable machine code. No HTTP and no framework here.

DomainError
    InvalidInput        the caller sent something that can never work
    NotFound            the named thing does not exist for this caller
    Conflict            it exists already, or is in a state that forbids the act
    Refused             the caller may not do this
    Unavailable         one of our stores is away; trying again can help
    ConfigurationError  the installation is set up wrongly; only the operator can mend it
"""

from typing import ClassVar


class DomainError(Exception):
    """A failure with a stable code and a sentence that may be shown to whoever asked."""

    code: ClassVar[str] = "domain_error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = code or self.code


class InvalidInput(DomainError):
    code = "invalid_input"


class NotFound(DomainError):
    code = "not_found"


class Conflict(DomainError):
    code = "conflict"


class Refused(DomainError):
    code = "refused"


class Unavailable(DomainError):
    code = "unavailable"


class ConfigurationError(DomainError):
    code = "configuration_error"
