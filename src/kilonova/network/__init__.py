"""The network agent: one per host. Bridges, address servers, rules against spoofing, the way to metadata."""
