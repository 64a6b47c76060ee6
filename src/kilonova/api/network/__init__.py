"""Network v2.0."""
