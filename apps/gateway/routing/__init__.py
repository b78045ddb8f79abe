"""Which model and which of its routes a request takes: order, fallback, health and measures."""
