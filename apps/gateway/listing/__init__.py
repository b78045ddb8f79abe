"""The catalog as callers see it."""
