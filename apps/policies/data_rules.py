"""Where an organization lets its prompts go, and which routes that leaves. Pure."""

from typing import Final, Protocol

import msgspec

REGION_PATTERN: Final = r"[a-z0-9-]{2,20}"


class Place(Protocol):
    """What is known of where a route leads. `apps.catalog.contracts.Target` is one."""

    @property
    def provider(self) -> str: ...

    @property
    def region(self) -> str:
        """ "" when it is not known."""

    @property
    def collects_data(self) -> bool: ...

    @property
    def zero_retention(self) -> bool: ...


class DataRules(msgspec.Struct, frozen=True):
    """An organization's decision. What a request says of its own may only make it stricter."""

    regions: tuple[str, ...] = ()
    """The regions that are allowed; all when there is none."""
    denies_collection: bool = False
    """No provider that may keep prompts, or learn from them."""
    requires_zero_retention: bool = False
    denied_providers: tuple[str, ...] = ()
    forbids_copies: bool = False
    """The operator may not send copies of requests elsewhere to compare answers."""
    forbids_storage: bool = False
    """No responses are stored for it. Nor are they where it wants zero retention."""

    def permits(self, place: Place) -> bool:
        """Whether a prompt may go there. A place whose region is not known is in none."""
        if place.provider in self.denied_providers or (self.regions and place.region not in self.regions):
            return False
        if self.requires_zero_retention and not place.zero_retention:
            return False
        return not self.denies_collection or place.zero_retention or not place.collects_data

    @property
    def reasons(self) -> str:
        """What it demands, in words that name no provider."""
        parts = (
            f"only the regions {', '.join(self.regions)}" if self.regions else "",
            "no provider that may keep prompts" if self.denies_collection else "",
            "only providers that keep nothing" if self.requires_zero_retention else "",
            "not the providers that it denies" if self.denied_providers else "",
        )
        return "; ".join(filter(None, parts))
