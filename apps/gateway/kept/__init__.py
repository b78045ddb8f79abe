"""Answers that are kept to be given again: compressed, sealed, and all in one bounded room of the store."""
