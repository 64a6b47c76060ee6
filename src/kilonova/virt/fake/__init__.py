"""Guests in memory: for simulated hosts."""
