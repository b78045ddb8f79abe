"""Alerts: what is worth telling, who is told, and the brake that pauses a key which spends too fast."""
