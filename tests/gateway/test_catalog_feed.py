"""What a gateway makes of the catalog that was loaded."""

import msgspec

from apps.gateway.catalog_feed import servable
from tests.factories import TARGET, offered, snapshot


def test_a_gateway_leaves_out_what_it_does_not_speak_and_keeps_all_else_of_the_catalog() -> None:
    foreign = msgspec.structs.replace(TARGET, dialect="telex")
    loaded = msgspec.structs.replace(
        snapshot(offered(id="both", targets=(foreign, TARGET)), offered(id="foreign", targets=(foreign,))),
        moderation=TARGET,
        cached_by_default=frozenset({"both"}),
    )
    served = servable(loaded)
    assert {name: model.targets for name, model in served.models.items()} == {"both": (TARGET,)}
    assert msgspec.structs.replace(served, models={}) == msgspec.structs.replace(loaded, models={})
