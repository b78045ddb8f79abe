"""The chain of hashes over the ledger: one chain a wallet, and one for what belongs to no organization."""

import django.db.models.deletion
from django.db import migrations, models

# A link is written at COMMIT, when all lines of its transaction are there. Whoever writes a transaction of an organization holds
# the lock of its wallet until then, so two links never want the same place; where that was forgotten, the unique
# constraint refuses one of them. Transactions without an organization queue behind an advisory lock.
# apps/billing/chain.py computes the same hash apart from this function, to check it.
#
# Processes that still run while this is migrated may write transactions. They wait for the lock, so every transaction is either
# linked below or by the trigger. Nobody but the owner may execute a function here: see migration 0008.
CHAIN = """
LOCK TABLE billing_ledgertransaction IN SHARE ROW EXCLUSIVE MODE;

CREATE FUNCTION billing_link(linked varchar) RETURNS void LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    entry billing_ledgertransaction;
    said text;
    last_place bigint := 0;
    last_hash bytea := '';
BEGIN
    SELECT * INTO entry FROM billing_ledgertransaction WHERE id = linked;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no ledger transaction % to link', linked USING ERRCODE = 'foreign_key_violation';
    END IF;
    IF entry.organization_id IS NULL THEN
        PERFORM pg_advisory_xact_lock(hashtextextended('billing_ledgerlink', 0));
    END IF;
    SELECT json_build_array(entry.id, entry.kind, entry.organization_id, entry.idempotency_key, entry.content_digest,
            entry.reason, entry.actor, entry.reverses_id, (extract(epoch FROM entry.created_at) * 1000000)::bigint,
            json_agg(json_build_array(account_id, amount_nanos, grant_id) ORDER BY id))::text
        INTO said FROM billing_ledgerline WHERE transaction_id = linked;
    SELECT position, hash INTO last_place, last_hash FROM billing_ledgerlink
        WHERE chain = coalesce(entry.organization_id, '') ORDER BY position DESC LIMIT 1;
    INSERT INTO billing_ledgerlink (transaction_id, chain, position, previous_hash, hash)
        VALUES (linked, coalesce(entry.organization_id, ''), coalesce(last_place, 0) + 1, coalesce(last_hash, ''),
                sha256(coalesce(last_hash, '') || convert_to(said, 'UTF8')));
END $$;
REVOKE ALL ON FUNCTION billing_link(varchar) FROM PUBLIC;

CREATE FUNCTION billing_link_transaction() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF TG_RELID <> 'public.billing_ledgertransaction'::regclass THEN
        RAISE EXCEPTION 'billing_link_transaction() works for the ledger only, not for %', TG_RELID::regclass
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM billing_link(NEW.id);
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION billing_link_transaction() FROM PUBLIC;

DO $$
DECLARE
    linked varchar;
BEGIN
    FOR linked IN SELECT id FROM billing_ledgertransaction ORDER BY id LOOP
        PERFORM billing_link(linked);
    END LOOP;
END $$;

CREATE CONSTRAINT TRIGGER ledger_transaction_linked AFTER INSERT ON billing_ledgertransaction
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION billing_link_transaction();
CREATE TRIGGER ledger_link_append_only BEFORE UPDATE OR DELETE ON billing_ledgerlink
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();
"""
NO_CHAIN = """
DROP TRIGGER ledger_transaction_linked ON billing_ledgertransaction;
DROP TRIGGER ledger_link_append_only ON billing_ledgerlink;
DROP FUNCTION billing_link_transaction();
DROP FUNCTION billing_link(varchar);
"""


class Migration(migrations.Migration):

    dependencies = [("billing", "0008_reconciliation")]

    operations = [
        migrations.CreateModel(
            name='LedgerAnchor',
            fields=[
                ('chain', models.CharField(max_length=40, primary_key=True, serialize=False)),
                ('position', models.BigIntegerField()),
                ('hash', models.BinaryField()),
                ('seen_at', models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name='LedgerLink',
            fields=[
                ('transaction', models.OneToOneField(db_constraint=False, on_delete=django.db.models.deletion.DO_NOTHING, primary_key=True, related_name='link', serialize=False, to='billing.ledgertransaction')),
                ('chain', models.CharField(max_length=40)),
                ('position', models.BigIntegerField()),
                ('previous_hash', models.BinaryField()),
                ('hash', models.BinaryField()),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('chain', 'position'), name='ledger_link_place_unique')],
            },
        ),
        migrations.RunSQL(CHAIN, NO_CHAIN),
    ]
