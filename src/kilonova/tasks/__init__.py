"""Long work as a table of small steps, each done once in effect, with its undo beside it. Knows nothing of servers."""
