"""Price versions are append-only, and every change of the catalog raises its version number: both kept by triggers."""

from django.db import migrations

CREATE = """
CREATE FUNCTION catalog_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a price version is never edited or deleted: add a new one'
        USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER price_version_append_only BEFORE UPDATE OR DELETE ON catalog_priceversion
    FOR EACH ROW EXECUTE FUNCTION catalog_refuse_change();

CREATE FUNCTION catalog_raise_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO catalog_catalogversion (id, number) VALUES (1, 1)
        ON CONFLICT (id) DO UPDATE SET number = catalog_catalogversion.number + 1;
    RETURN NULL;
END $$;

CREATE TRIGGER provider_raises_version AFTER INSERT OR UPDATE OR DELETE ON catalog_provider
    FOR EACH STATEMENT EXECUTE FUNCTION catalog_raise_version();
CREATE TRIGGER model_raises_version AFTER INSERT OR UPDATE OR DELETE ON catalog_model
    FOR EACH STATEMENT EXECUTE FUNCTION catalog_raise_version();
CREATE TRIGGER route_raises_version AFTER INSERT OR UPDATE OR DELETE ON catalog_route
    FOR EACH STATEMENT EXECUTE FUNCTION catalog_raise_version();
CREATE TRIGGER price_raises_version AFTER INSERT OR UPDATE OR DELETE ON catalog_priceversion
    FOR EACH STATEMENT EXECUTE FUNCTION catalog_raise_version();
"""

DROP = """
DROP TRIGGER price_version_append_only ON catalog_priceversion;
DROP TRIGGER provider_raises_version ON catalog_provider;
DROP TRIGGER model_raises_version ON catalog_model;
DROP TRIGGER route_raises_version ON catalog_route;
DROP TRIGGER price_raises_version ON catalog_priceversion;
DROP FUNCTION catalog_refuse_change;
DROP FUNCTION catalog_raise_version;
"""


class Migration(migrations.Migration):
    dependencies = [("catalog", "0001_initial")]

    operations = [migrations.RunSQL(CREATE, DROP)]
