"""Image bytes: where they lie, and who may read them without a token."""
