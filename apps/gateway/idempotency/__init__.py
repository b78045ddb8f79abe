"""`Idempotency-Key`: the same request sent again gets the same answer and is charged once."""
