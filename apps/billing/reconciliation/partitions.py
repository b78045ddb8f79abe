"""Proofs over the partitions of the usage records: the coming days have one, and every record is in the right one."""

from typing import Final

PROOFS: Final = {
    "the coming days have partitions": """
SELECT to_char(wanted, 'YYYY-MM-DD'), 'has no partition'
FROM generate_series(
    date_trunc('day', now() AT TIME ZONE 'UTC'), now() AT TIME ZONE 'UTC' + interval '1 day', '1 day'
) wanted
WHERE NOT EXISTS (SELECT FROM pg_class JOIN pg_inherits ON inhrelid = pg_class.oid
    WHERE inhparent = 'usage_usagerecord'::regclass AND relname = 'usage_record_' || to_char(wanted, 'YYYYMMDD'))
""",
    "records lie in the partition of their id": """
SELECT request_id, 'lies in ' || tableoid::regclass
FROM usage_usagerecord
WHERE day <> (to_timestamp(('x' || lpad(substr(request_id, 5, 12), 16, '0'))::bit(64)::bigint / 1000.0)
              AT TIME ZONE 'UTC')::date
    OR tableoid::regclass::text <> 'usage_record_' || to_char(day, 'YYYYMMDD')
""",
}
"""Rule -> the statement that finds (offender, what is wrong with it)."""
