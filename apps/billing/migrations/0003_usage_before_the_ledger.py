from django.db import migrations

# Usage that was posted before there was a ledger: charged, and written off at once, per organization.
# So the books account for every posted record, and nobody starts with a debt that was never announced.
OPEN_THE_BOOKS = """
CREATE TEMP TABLE opening ON COMMIT DROP AS
    SELECT organization_id, sum(cost_nanos)::bigint AS cost_nanos
    FROM usage_usagerecord record
    WHERE NOT EXISTS (SELECT FROM usage_unpostedusage waiting
                      WHERE (waiting.day, waiting.request_id) = (record.day, record.request_id))
    GROUP BY organization_id HAVING sum(cost_nanos) > 0;

INSERT INTO billing_ledgeraccount (kind, organization_id, balance_nanos)
    SELECT 'wallet', organization_id, 0 FROM opening ORDER BY organization_id;
INSERT INTO billing_ledgeraccount (kind) SELECT kind FROM (VALUES ('revenue'), ('write_offs')) shared (kind)
    WHERE EXISTS (SELECT FROM opening);

INSERT INTO billing_ledgertransaction (id, kind, organization_id, idempotency_key, content_digest, reason, actor)
    SELECT 'txn_' || lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0')
               || substr(encode(sha256((organization_id || kind)::bytea), 'hex'), 1, 20),
           kind, organization_id, 'opening:' || kind || ':' || organization_id, '', reason, 'migration'
    FROM opening, (VALUES ('usage', 'Usage before the ledger'), ('write_off', 'Usage before the ledger is free'))
        entry (kind, reason);

INSERT INTO billing_ledgerline (transaction_id, account_id, amount_nanos)
    SELECT entry.id, account.id,
           CASE WHEN (account.kind = 'wallet') = (entry.kind = 'usage') THEN -cost_nanos ELSE cost_nanos END
    FROM opening
    JOIN billing_ledgertransaction entry USING (organization_id)
    JOIN billing_ledgeraccount account
        ON account.organization_id = opening.organization_id
        OR account.kind = CASE entry.kind WHEN 'usage' THEN 'revenue' ELSE 'write_offs' END
    ORDER BY entry.id DESC;
"""


class Migration(migrations.Migration):

    dependencies = [("billing", "0002_ledger_rules"), ("usage", "0001_initial")]

    operations = [migrations.RunSQL(OPEN_THE_BOOKS, migrations.RunSQL.noop)]
