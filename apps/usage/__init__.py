"""What was used: the journal, the records and their rollups."""
