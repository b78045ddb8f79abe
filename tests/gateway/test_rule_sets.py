"""Compiled rule sets: made once, beside the event loop, and kept by what they take."""

import asyncio

import pytest

from apps.core.errors import InvalidInput
from apps.gateway.guardrails import rule_sets
from apps.gateway.guardrails.rule_sets import RuleSets
from apps.policies.compiled import Guards
from apps.policies.rules import Guardrail
from tests.policies.rules import keywords, pattern

pytestmark = pytest.mark.asyncio


async def test_who_asks_for_the_same_rules_at_once_waits_for_one_compilation_and_the_loop_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[tuple[Guardrail, ...]] = []
    loop = asyncio.get_running_loop()
    may_end = asyncio.Event()

    def slow(rules: tuple[Guardrail, ...]) -> Guards:
        made.append(rules)
        asyncio.run_coroutine_threadsafe(may_end.wait(), loop).result(20)  # never, if this were the loop's own thread
        return Guards(rules)

    monkeypatch.setattr(rule_sets, "Guards", slow)
    sets, rules = RuleSets(), (keywords("one"),)
    waiting = [asyncio.create_task(sets.of(rules)) for _ in range(20)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    may_end.set()
    first, *others = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(first, asyncio.CancelledError)
    assert {id(each) for each in others} == {id(await sets.of(rules))} and made == [rules]
    sets.close()


async def test_rules_that_were_not_used_for_longest_give_way_to_others() -> None:
    sets_of_rules = [(keywords(word),) for word in ("one", "two", "three")]
    one, two, three = sets_of_rules
    sets = RuleSets(most_steps=2 * max(Guards(rules).steps for rules in sets_of_rules))
    kept = [await sets.of(one), await sets.of(two)]
    assert await sets.of(one) is kept[0]
    await sets.of(three)
    assert await sets.of(one) is kept[0] and await sets.of(two) is not kept[1]
    sets.close()


async def test_rules_that_are_larger_than_the_room_are_kept_alone() -> None:
    sets, rules = RuleSets(most_steps=1), (keywords("one"),)
    assert await sets.of(rules) is await sets.of(rules)
    sets.close()


async def test_a_rule_that_does_not_compile_is_told_each_time() -> None:
    sets = RuleSets()
    for _ in range(2):
        with pytest.raises(InvalidInput):
            await sets.of((pattern("("),))
    sets.close()
