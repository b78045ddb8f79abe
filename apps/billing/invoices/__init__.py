"""Invoices, credit notes and monthly statements; docs/invoices.md tells how they come to be."""
