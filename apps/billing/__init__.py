"""What it costs: rating, settlement of records, recovery."""
