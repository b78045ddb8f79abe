"""Reconciliation: the nightly proofs and what vendors say they charged."""
