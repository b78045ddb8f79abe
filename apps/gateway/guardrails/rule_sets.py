"""The compiled rules of organizations in one worker: made once, in threads, and kept by how much memory they take."""

import asyncio
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from apps.policies.compiled import Guards
from apps.policies.rules import Guardrail

MOST_STEPS: Final = 400_000
"""Instructions of all rules that are kept. RE2 notes what it has seen while they read: 750 bytes for each of them were
measured with keywords, so some 300 MB. The largest set that an organization may have comes to 190,000."""
THREADS: Final = 2
"""The largest set takes a quarter of a second; the loop gets its turns between two expressions of it."""

RuleSet = tuple[Guardrail, ...]


class RuleSets:
    """Used on the event loop of its worker."""

    def __init__(self, most_steps: int = MOST_STEPS) -> None:
        self._most_steps = most_steps
        self._steps = 0
        self._kept: OrderedDict[RuleSet, Guards] = OrderedDict()
        self._compiling: dict[RuleSet, asyncio.Future[Guards]] = {}
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="rule sets")

    async def of(self, rules: RuleSet) -> Guards:
        """These rules, compiled. Raises InvalidInput for what no rule should be: it was refused when it was saved."""
        guards = self._kept.get(rules)
        if guards is not None:
            self._kept.move_to_end(rules)
            return guards
        compiling = self._compiling.get(rules)
        if compiling is None:
            compiling = asyncio.get_running_loop().run_in_executor(self._threads, Guards, rules)
            self._compiling[rules] = compiling
            compiling.add_done_callback(lambda done: self._compiled(rules, done))
        return await asyncio.shield(compiling)

    def close(self) -> None:
        """No more is compiled."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _compiled(self, rules: RuleSet, done: "asyncio.Future[Guards]") -> None:
        del self._compiling[rules]
        if done.cancelled() or done.exception() is not None:
            return
        self._kept[rules] = guards = done.result()
        self._steps += guards.steps
        while self._steps > self._most_steps and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._steps -= oldest.steps
