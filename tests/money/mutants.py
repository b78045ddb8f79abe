"""Deliberate mistakes in the code that guards money, each with the tests that must notice it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """In `path` the only `text` becomes `replacement`; then `tests` (arguments of pytest) must fail."""

    name: str
    path: str
    text: str
    replacement: str
    tests: str


_CRASHES = "tests/money/test_crash_points_of_requests.py"
_POSTING_CRASHES = "tests/money/test_crash_points_of_posting.py"
_MACHINE = "tests/money/test_money_machine.py"
_CANCELS = "tests/money/test_random_cancels.py"
_MONEY = "tests/gateway/test_money.py"
_RULES = "tests/money/test_rules.py"
_LEDGER_RULES = "apps/billing/migrations/0002_ledger_rules.py"

MUTANTS = [
    Mutant(
        "admission does not look at the money",
        "apps/billing/scripts/admit.lua",
        "if most > 0 and room < most then",
        "if false then",
        "tests/gateway/test_money.py -k a_dollar_and_500",
    ),
    Mutant(
        "admission forgets what running requests hold",
        "apps/billing/scripts/state.lua",
        "local room = limit - held",
        "local room = limit",
        "tests/gateway/test_money.py -k a_dollar_and_500",
    ),
    Mutant(
        "a settlement counts as often as it comes",
        "apps/billing/scripts/settle.lua",
        "if redis.call('ZADD', settled, 'NX', now_ms, id) == 0 then",
        "if false then",
        f"{_MONEY} -k settled_again",
    ),
    Mutant(
        "a restarted server is believed",
        "apps/billing/scripts/state.lua",
        "if redis.call('GET', epoch) ~= ARGV[1] then",
        "if false then",
        "tests/gateway/test_money.py -k another_server",
    ),
    Mutant(
        "costs are added to the balance",
        "apps/billing/scripts/state.lua",
        "int(-sign * cost))",
        "int(sign * cost))",
        "tests/gateway/test_money.py -k agree_after_a_storm",
    ),
    Mutant(
        "lost holds are never dropped",
        "apps/billing/scripts/admit.lua",
        "if #lost > 0 then",
        "if false then",
        _MACHINE,
    ),
    Mutant(
        "a rebuild keeps the holds of requests that have ended",
        "apps/billing/scripts/install.lua",
        "  drop_hold(id, false)\n",
        "",
        f"{_MONEY} -k frees_what",
    ),
    Mutant(
        "a rebuild overlooks records that wait for posting",
        "apps/billing/rebuilding.py",
        "balance = balance_nanos(owner) - _unposted_nanos(owner)",
        "balance = balance_nanos(owner)",
        "tests/gateway/test_money.py -k wherever_it_is",
    ),
    Mutant(
        "a rebuild overlooks what stands in journals alone",
        "apps/billing/rebuilding.py",
        "in (*closed.values(), *(unrecorded[name] for name in elsewhere)):",
        "in [unrecorded[name] for name in elsewhere]:",
        "tests/gateway/test_money.py -k wherever_it_is",
    ),
    Mutant(
        "a rebuild overlooks what other machines settled",
        "apps/billing/rebuilding.py",
        "in (*closed.values(), *(unrecorded[name] for name in elsewhere)):",
        "in closed.values():",
        "tests/gateway/test_several_machines.py -k did_not_ship",
    ),
    Mutant(
        "a machine that was cut off loses its holds",
        "apps/billing/rebuilding.py",
        "if is_ours or until_ms <= now_ms:",
        "if True:",
        "tests/gateway/test_several_machines.py -k cut_off",
    ),
    Mutant(
        "a close that the disk refused is settled all the same",
        "apps/usage/journal.py",
        '            log.error("close kept in memory, the journal cannot be written: %s", error)\n',
        "            if then is not None:\n                then()\n",
        "tests/gateway/test_several_machines.py -k disk_refused",
    ),
    Mutant(
        "the balance is dropped before the ledger has committed",
        "apps/billing/balance_cache.py",
        "transaction.on_commit(lambda: _drop([row]))",
        "_drop([row])",
        "tests/billing/test_balance_cache.py",
    ),
    Mutant(
        "nobody drops the balance when the ledger changes",
        "apps/billing/balance_cache.py",
        "client.delete(money_key(owner))",
        "client.exists(money_key(owner))",
        _MACHINE,
    ),
    Mutant(
        "no intent is written before the upstream is called",
        "apps/gateway/metering/record.py",
        "        journal.open_request(opened)\n",
        "",
        f"{_CRASHES} -k 0",
    ),
    Mutant(
        "the hold is settled before the journal knows the end",
        "apps/gateway/metering/record.py",
        "            self._journal.close_request(self.closed, then=partial(self._written, self.closed))\n",
        "            self._settle(self.closed)\n            self._journal.close_request(self.closed)\n",
        f"{_RULES} -k settled_only_when",
    ),
    Mutant(
        "a fallback runs on the hold of the first model",
        "apps/gateway/routing/fallback.py",
        "        admission, allowance = await reserve(runtime.reservations, admission)\n"
        "        self.targets = targets\n"
        "        self._note(allowance)\n",
        "        if not is_again:\n"
        "            admission, allowance = await reserve(runtime.reservations, admission)\n"
        "            self._note(allowance)\n"
        "        self.targets = targets\n",
        "tests/gateway/test_fallback.py -k d11",
    ),
    Mutant(
        "a fallback never gives back the hold of the first model",
        "apps/billing/scripts/admit.lua",
        "local before = is_known and drop_hold(id, true)",
        "local before = false",
        "tests/gateway/test_fallback.py -k d11",
    ),
    Mutant(
        "both models of a fallback are charged",
        "apps/gateway/metering/record.py",
        "        self._journal.open_request(opened)\n        self._opened = opened\n",
        "        self.close(Outcome.FAILED, TokenCounts(input=self._opened.input_estimate), estimated=True)\n"
        "        self.closed = None\n"
        "        self._journal.open_request(opened)\n"
        "        self._opened = opened\n",
        "tests/gateway/test_fallback.py -k d11",
    ),
    Mutant(
        "what goes beyond a hold is billed",
        "apps/usage/contracts.py",
        "billed = cost_nanos if self.ceiling_nanos is None else min(cost_nanos, self.ceiling_nanos)",
        "billed = cost_nanos",
        "tests/gateway/test_limits.py -k claims_too_much",
    ),
    Mutant(
        "requests that never reached an upstream are billed by estimate",
        "apps/billing/recovery.py",
        "TokenCounts() if output_tokens is None else",
        "",
        f"{_CRASHES} -k 0",
    ),
    Mutant(
        "requests of dead processes are forgotten",
        "apps/usage/shipping.py",
        "    report.recovered += _record(folder, orphans, on_recorded)\n",
        "",
        f"{_CRASHES} -k 0",
    ),
    Mutant(
        "a live journal is skipped before it is recorded",
        "apps/usage/shipping.py",
        "        report.recorded += _record(folder, found.closed, on_recorded)\n"
        "        record_shadows(found.shadows)\n"
        "        if segment is not segments[-1]:\n",
        "        record_shadows(found.shadows)\n        if segment is not segments[-1]:\n",
        f"{_POSTING_CRASHES} -k 0",
    ),
    Mutant(
        "a record that comes twice is an error",
        "apps/usage/recording.py",
        "    ON CONFLICT (day, request_id) DO NOTHING\n",
        "",
        "tests/usage/test_shipping.py -k twice",
    ),
    Mutant(
        "the checksum of a journal entry is not checked",
        "apps/usage/journal.py",
        " or zlib.crc32(payload) != checksum:",
        ":",
        "tests/usage/test_journal.py -k flipped",
    ),
    Mutant(
        "posting is not one transaction",
        "apps/billing/posting.py",
        "@transaction.atomic\ndef post_batch()",
        "def post_batch()",
        f"{_POSTING_CRASHES} -k 0",
    ),
    Mutant(
        "sums of an hour are replaced",
        "apps/usage/rollups.py",
        "= usage_usagerollup.{name} + excluded.{name}",
        "= excluded.{name}",
        f"{_RULES} -k any_order",
    ),
    Mutant(
        "wallets are not locked",
        "apps/billing/ledger.py",
        ".select_for_update(no_key=True)",
        "",
        "tests/billing/test_at_once.py -k twenty",
    ),
    Mutant(
        "a charge is refunded without end",
        "apps/billing/grants.py",
        "    if amount_nanos > rest:\n",
        "    if False:\n",
        "tests/billing/test_grants.py tests/billing/test_at_once.py -k d15",
    ),
    Mutant(
        "worst cases are rounded down",
        "apps/billing/holding.py",
        "return -(-exact // TOKENS_PER_PRICE_UNIT) + flat_nanos",
        "return exact // TOKENS_PER_PRICE_UNIT + flat_nanos",
        "tests/billing/test_rating.py",
    ),
    Mutant(
        "another body gets the answer of the first",
        "apps/gateway/idempotency/scripts/claim.lua",
        "if found[1] ~= body then",
        "if false then",
        "tests/gateway/test_idempotency.py -k another_body",
    ),
    Mutant(
        "a claim does not keep twins out",
        "apps/gateway/idempotency/scripts/claim.lua",
        "if tonumber(found[4]) > now_ms then return {'running', found[2]} end\n"
        "  if found[2] ~= ARGV[9] then return {'lost', found[2]} end",
        "",
        "tests/gateway/test_idempotency.py -k 50_twins_at_once",
    ),
    Mutant(
        "a lost claim is taken over without asking what it cost",
        "apps/gateway/idempotency/scripts/claim.lua",
        "if found[2] ~= ARGV[9] then",
        "if false then",
        "tests/gateway/test_idempotency.py -k a_lost_request_is_looked_for",
    ),
    Mutant(
        "a claim ends before the journal knows what it cost",
        "apps/gateway/idempotency/claims.py",
        "        if claim.closed is None and self._reservations.is_running(claim.keyed.request_id):\n"
        "            return  # its end does not stand in the journal yet: it will be told\n",
        "",
        "tests/gateway/test_idempotency.py -k stands_in_the_journal",
    ),
    Mutant(
        "what cost something and has no answer is forgotten",
        "apps/gateway/idempotency/claims.py",
        "        elif cost_nanos:\n",
        "        elif False:\n",
        "tests/gateway/test_idempotency.py -k was_charged_is_not_done_again",
    ),
    Mutant(
        "a connection whose answer nobody waited for carries the next request",
        "apps/gateway/providers/connection.py",
        'self.abort("given up")',
        "self._parser = None\n                self._on_free(self)",
        _CANCELS,
    ),
    Mutant(
        "SQL: an idempotency key can be used twice",
        "apps/billing/migrations/0001_initial.py",
        "('idempotency_key', models.CharField(max_length=200, unique=True))",
        "('idempotency_key', models.CharField(max_length=200))",
        "tests/billing/test_at_once.py -k wanted_by_many",
    ),
    Mutant(
        "candidates that are not shown are not held for",
        "apps/gateway/dialects/completions.py",
        'choices=chat.get("best_of") or chat.get("n") or 1,',
        'choices=chat.get("n") or 1,',
        "tests/upstream/test_text_completions.py -k whichever_are_shown",
    ),
    Mutant(
        "a prompt that is said again is billed as output",
        "apps/gateway/providers/text_completions.py",
        'text = self._without_echo(index, choice["text"])',
        'text = choice["text"]',
        "tests/upstream/test_text_completions.py -k said_again",
    ),
    Mutant(
        "SQL: nobody adds up a transaction's lines",
        _LEDGER_RULES,
        "IF lines < 2 OR total <> 0 THEN",
        "IF false THEN",
        "tests/billing/test_ledger.py -k d1_",
    ),
    Mutant(
        "SQL: transactions can be changed",
        _LEDGER_RULES,
        "CREATE TRIGGER ledger_transaction_append_only BEFORE UPDATE OR DELETE ON",
        "CREATE TRIGGER ledger_transaction_append_only BEFORE DELETE ON",
        "tests/billing/test_ledger.py -k d27",
    ),
    Mutant(
        "SQL: a balance can be corrected without lines",
        _LEDGER_RULES,
        "FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION billing_refuse_change();\n"
        "CREATE TRIGGER grant_rest_follows",
        "FOR EACH ROW WHEN (false) EXECUTE FUNCTION billing_refuse_change();\nCREATE TRIGGER grant_rest_follows",
        "tests/billing/test_ledger.py -k d2_",
    ),
]
