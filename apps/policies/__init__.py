"""What organizations decide about their own requests, and how a gateway reads it."""
