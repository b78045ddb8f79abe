"""Whether a request may go on: models offered, money reserved, limits kept, refusals told."""
