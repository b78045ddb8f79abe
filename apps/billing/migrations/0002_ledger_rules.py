from django.db import migrations

# The rules of the ledger live in the database, so that no code path and no shell can skip them:
# rows are only added, a transaction has two lines or more that sum to zero at COMMIT, lines come with their transaction,
# and the balance of a wallet and the rest of a grant follow from the lines in the statement that adds them.
RULES = """
ALTER TABLE billing_ledgertransaction ADD COLUMN written_in xid8 NOT NULL DEFAULT pg_current_xact_id();

CREATE FUNCTION billing_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only: % on % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER ledger_transaction_append_only BEFORE UPDATE OR DELETE ON billing_ledgertransaction
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();
CREATE TRIGGER ledger_line_append_only BEFORE UPDATE OR DELETE ON billing_ledgerline
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();
CREATE TRIGGER ledger_account_stays BEFORE DELETE ON billing_ledgeraccount
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();
CREATE TRIGGER grant_stays BEFORE DELETE ON billing_grant
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();
-- Of an account only the balance may follow its lines, of a grant only the rest.
CREATE TRIGGER ledger_account_fixed BEFORE UPDATE ON billing_ledgeraccount
    FOR EACH ROW WHEN ((to_jsonb(OLD) - 'balance_nanos') IS DISTINCT FROM (to_jsonb(NEW) - 'balance_nanos'))
    EXECUTE FUNCTION billing_refuse_change();
CREATE TRIGGER grant_fixed BEFORE UPDATE ON billing_grant
    FOR EACH ROW WHEN ((to_jsonb(OLD) - 'remaining_nanos') IS DISTINCT FROM (to_jsonb(NEW) - 'remaining_nanos'))
    EXECUTE FUNCTION billing_refuse_change();
-- And they change in no other way than by lines: an update from outside a trigger is refused.
CREATE TRIGGER ledger_balance_follows BEFORE UPDATE OF balance_nanos ON billing_ledgeraccount
    FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION billing_refuse_change();
CREATE TRIGGER grant_rest_follows BEFORE UPDATE OF remaining_nanos ON billing_grant
    FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION billing_refuse_change();

CREATE FUNCTION billing_check_line() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM billing_ledgertransaction
        WHERE id = NEW.transaction_id AND written_in = pg_current_xact_id();
    IF NOT FOUND THEN
        RAISE EXCEPTION 'ledger lines are written with their transaction, never later'
            USING ERRCODE = 'restrict_violation';
    END IF;
    IF NEW.grant_id IS NOT NULL THEN
        PERFORM 1 FROM billing_grant JOIN billing_ledgeraccount USING (organization_id)
            WHERE billing_grant.id = NEW.grant_id AND billing_ledgeraccount.id = NEW.account_id;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'a grant is used on the wallet of its own organization'
                USING ERRCODE = 'check_violation';
        END IF;
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER ledger_line_belongs BEFORE INSERT ON billing_ledgerline
    FOR EACH ROW EXECUTE FUNCTION billing_check_line();

CREATE FUNCTION billing_apply_lines() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE billing_ledgeraccount account SET balance_nanos = account.balance_nanos + moved.amount
        FROM (SELECT account_id, sum(amount_nanos)::bigint AS amount FROM added GROUP BY account_id) moved
        WHERE account.id = moved.account_id AND account.organization_id IS NOT NULL AND moved.amount <> 0;
    UPDATE billing_grant credit SET remaining_nanos = credit.remaining_nanos + moved.amount
        FROM (SELECT grant_id, sum(amount_nanos)::bigint AS amount FROM added
              WHERE grant_id IS NOT NULL GROUP BY grant_id) moved
        WHERE credit.id = moved.grant_id AND moved.amount <> 0;
    RETURN NULL;
END $$;

CREATE TRIGGER ledger_lines_apply AFTER INSERT ON billing_ledgerline
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION billing_apply_lines();

CREATE FUNCTION billing_check_balanced() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    checked varchar;
    lines bigint;
    total numeric;
BEGIN
    IF TG_TABLE_NAME = 'billing_ledgertransaction' THEN checked := NEW.id; ELSE checked := NEW.transaction_id; END IF;
    SELECT count(*), coalesce(sum(amount_nanos), 0) INTO lines, total
        FROM billing_ledgerline WHERE transaction_id = checked;
    IF lines < 2 OR total <> 0 THEN
        RAISE EXCEPTION 'ledger transaction % has % lines that sum to % nano-USD', checked, lines, total
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER ledger_transaction_balanced AFTER INSERT ON billing_ledgertransaction
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION billing_check_balanced();
CREATE CONSTRAINT TRIGGER ledger_line_balanced AFTER INSERT ON billing_ledgerline
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION billing_check_balanced();
"""
NO_RULES = """
DROP TRIGGER ledger_transaction_append_only ON billing_ledgertransaction;
DROP TRIGGER ledger_line_append_only ON billing_ledgerline;
DROP TRIGGER ledger_account_stays ON billing_ledgeraccount;
DROP TRIGGER grant_stays ON billing_grant;
DROP TRIGGER ledger_account_fixed ON billing_ledgeraccount;
DROP TRIGGER grant_fixed ON billing_grant;
DROP TRIGGER ledger_balance_follows ON billing_ledgeraccount;
DROP TRIGGER grant_rest_follows ON billing_grant;
DROP TRIGGER ledger_line_belongs ON billing_ledgerline;
DROP TRIGGER ledger_lines_apply ON billing_ledgerline;
DROP TRIGGER ledger_transaction_balanced ON billing_ledgertransaction;
DROP TRIGGER ledger_line_balanced ON billing_ledgerline;
DROP FUNCTION billing_refuse_change;
DROP FUNCTION billing_check_line;
DROP FUNCTION billing_apply_lines;
DROP FUNCTION billing_check_balanced;
ALTER TABLE billing_ledgertransaction DROP COLUMN written_in;
"""


class Migration(migrations.Migration):

    dependencies = [("billing", "0001_initial")]

    operations = [migrations.RunSQL(RULES, NO_RULES)]
