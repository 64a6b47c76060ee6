"""The only place that chooses implementations and puts services together."""
