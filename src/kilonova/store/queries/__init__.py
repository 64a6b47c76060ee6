"""Queries, one file a noun. The transaction is the first argument; models come out, never rows."""
