"""The rooms of CRUN; see docs/architecture.md."""
