"""Filters, weighers and a scheduler for Kilonova, as anybody may write them."""
