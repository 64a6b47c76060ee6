"""Simulation: made-up clouds of any size, for measuring and for finding faults."""
