"""The Compute API v2.1: one file per resource, each with its schema, its handlers and its view."""
