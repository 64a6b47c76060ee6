"""Kilonova: a compute cloud that starts with one command and speaks OpenStack."""

__version__ = "0.1.0"
