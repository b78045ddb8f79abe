"""Money in: providers behind one interface, top-ups, saved cards, refunds, disputes, and the inbox of events."""
