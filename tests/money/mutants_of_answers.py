"""Deliberate mistakes in what is kept of answers, held for them and counted of them: beside those of `mutants.py`."""

from tests.money.mutants import Mutant

_WHOSE = "tests/responses/test_whose.py"
_BETWEEN = "tests/gateway/test_between_steps.py"
_KEEPING = "apps/responses/keeping.py"
_SIDE = " AND chain.sandbox = %(sandbox)s"
_PROJECT = " AND chain.project_id = %(project)s"
_OWNED = f"    AND chain.organization_id = %(organization)s{_PROJECT}{_SIDE}\n"
_FIND = f"WHERE stored.id = ANY(%(ids)s) AND chain.expires_at > now()\n{_OWNED}"
_WALK = f"WHERE stored.id = %(id)s AND chain.expires_at > now()\n{_OWNED}"
_DELETE = f"{_OWNED}    FOR UPDATE\n"

MUTANTS_OF_ANSWERS = [
    Mutant(
        "another project finds a stored response",
        _KEEPING,
        _FIND,
        _FIND.replace(_PROJECT, ""),
        _WHOSE,
    ),
    Mutant(
        "the sandbox goes on from what is live",
        _KEEPING,
        _WALK,
        _WALK.replace(_SIDE, ""),
        _WHOSE,
    ),
    Mutant(
        "another organization goes on from a stored response",
        _KEEPING,
        _WALK,
        _WALK.replace("chain.organization_id = %(organization)s", "true"),
        _WHOSE,
    ),
    Mutant(
        "another organization deletes a stored response",
        _KEEPING,
        _DELETE,
        _DELETE.replace("chain.organization_id = %(organization)s", "true"),
        _WHOSE,
    ),
    Mutant(
        "a stored response opens for another organization",
        "apps/responses/sealing.py",
        "{owner.organization_id}:",
        "",
        _WHOSE,
    ),
    Mutant(
        "a stored response opens for another project",
        "apps/responses/sealing.py",
        "{owner.project_id}:",
        "",
        _WHOSE,
    ),
    Mutant(
        "a stored response opens on the other side",
        "apps/responses/sealing.py",
        "{side}:",
        "",
        _WHOSE,
    ),
    Mutant(
        "a stored response opens in the place of another",
        "apps/responses/sealing.py",
        "{side}:{name}",
        "{side}:",
        _WHOSE,
    ),
    Mutant(
        "a conversation counts as its last response",
        _KEEPING,
        "SET bytes = known.bytes + EXCLUDED.bytes",
        "SET bytes = EXCLUDED.bytes",
        "tests/responses/test_forgetting.py -k counts_what_is_deleted",
    ),
    Mutant(
        "what is too large is stored all the same",
        "apps/gateway/stored/recalling.py",
        "if size <= settings.RESPONSES_MAX_BYTES:",
        "if True:",
        "tests/gateway/test_stored_responses.py -k too_large",
    ),
    Mutant(
        "what a request goes on from is not held for",
        "apps/gateway/dialects/responses/request.py",
        "    asked.grow_as_written()\n",
        "",
        "tests/gateway/test_stored_responses.py -k refers_to",
    ),
    Mutant(
        "what OpenAI's Responses tell of their cache is billed twice",
        "apps/gateway/metering/token_usage.py",
        'elif "input_tokens_details" in usage or "total_tokens" in usage:',
        "elif False:",
        "tests/upstream/test_responses_upstream.py -k billed_as",
    ),
    Mutant(
        "a vendor's tool is held for as if it read nothing",
        "apps/gateway/dialects/responses/request.py",
        "if self.inputs > 1:",
        "if False:",
        "tests/upstream/test_responses_native.py -k held_for",
    ),
    Mutant(
        "a caller's bound on a vendor's tool is believed beyond the operator's",
        "apps/gateway/dialects/responses/vendor_tools.py",
        "return min(most, asked) if type(asked) is int else most",
        "return asked if type(asked) is int else most",
        "tests/upstream/test_responses_native.py -k held_for",
    ),
    Mutant(
        "a key may be more than its organization",
        "apps/core/priorities.py",
        "min(Priority(own), organization)",
        "Priority(own)",
        "tests/keys/test_limits.py -k or_less",
    ),
    Mutant(
        "whoever is of low priority stays",
        "apps/gateway/views/asking.py",
        "shedding.check(asked.asked_tier, self.grant.priority,",
        "shedding.check(asked.asked_tier, 2,",
        "tests/gateway/test_shedding.py -k sent_away_and",
    ),
    Mutant(
        "output that is told for embeddings is billed",
        "apps/gateway/answers/embeddings.py",
        "    if told.tokens.all_output:\n",
        "    if False:\n",
        "tests/gateway/test_embeddings.py -k billed_as_told",
    ),
    Mutant(
        "embeddings without usage are free",
        "apps/gateway/answers/embeddings.py",
        "tokens = TokenCounts(input=exchange.admission.asked.input_estimate())",
        "tokens = TokenCounts()",
        "tests/gateway/test_embeddings.py -k billed_as_told",
    ),
    Mutant(
        "the moderation model is asked before the money is held",
        "apps/gateway/guardrails/asking.py",
        "            guarding.judge_request = partial(_judge, asked, guarding.judge)\n",
        "            await _judge(asked, guarding.judge)\n",
        "tests/gateway/test_moderation.py -k no_money",
    ),
    Mutant(
        "who leaves while the moderation model thinks is billed",
        "apps/gateway/dispatch.py",
        "            meter.note_nobody_asked()\n            raise\n",
        "            meter.note_sent()\n            raise\n",
        "tests/gateway/test_moderation.py -k leaves_while",
    ),
    Mutant(
        "counting tokens has no limit of its model",
        "apps/gateway/admission/free_requests.py",
        "NO_LIMITS if model is None else _rates_of_requests(model.limits),",
        "NO_LIMITS,",
        "tests/gateway/test_token_counts.py -k rate_of_the_model",
    ),
    Mutant(
        "counting tokens has no limit of its key",
        "apps/gateway/admission/free_requests.py",
        "        key_limits=_rates_of_requests(grant.key_limits),\n",
        "",
        "tests/gateway/test_token_counts.py -k one_request_of_its_minute",
    ),
    Mutant(
        "one organization has all upstreams counting",
        "apps/gateway/answers/token_count.py",
        "self._running[organization_id] < MAX_OF_ONE and",
        "",
        "tests/gateway/test_token_counts.py -k few_upstreams",
    ),
    Mutant(
        "counting for nothing needs no credit",
        "apps/gateway/views/messages.py",
        "may_ask=allowance.left_nanos is None or allowance.left_nanos > 0,",
        "may_ask=True,",
        "tests/gateway/test_token_counts.py -k without_credit",
    ),
    Mutant(
        "twins wait without number",
        "apps/gateway/idempotency/keys.py",
        "if found.state is not State.RUNNING or not self._may_wait(grant.key_id):",
        "if found.state is not State.RUNNING:",
        "tests/gateway/test_idempotency.py -k more_twins",
    ),
    Mutant(
        "twins that left count as waiting",
        "apps/gateway/idempotency/keys.py",
        "            self._waiting_of -= Counter({grant.key_id: 1})\n",
        "            pass\n",
        "tests/gateway/test_idempotency.py -k twin",
    ),
    Mutant(
        "who leaves before a stream has begun keeps its idempotency key running",
        "apps/gateway/server/asgi.py",
        "async with aclosing(response.source):",
        "if True:",
        f"{_BETWEEN} -k begun_early",
    ),
    Mutant(
        "who leaves a whole answer pays for none of it",
        "apps/gateway/answers/relay.py",
        "                left(exchange, body)\n",
        "                pass\n",
        f"{_BETWEEN} -k pays_what",
    ),
    Mutant(
        "a mistake of ours keeps what it opened",
        "apps/gateway/views/asking.py",
        "            self.exchange.fail(error)\n",
        "            pass\n",
        f"{_BETWEEN} -k mistake",
    ),
]
