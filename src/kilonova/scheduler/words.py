"""Pieces of the sentences that tell people what was missing. Never a host's name."""

from kilonova.scheduler.table import IntColumn, Mask


def largest(free: IntColumn, among: Mask, unit: str = "") -> str:
    """The most that any host in `among` has free, and how many have it."""
    amounts = free[among]
    most = int(amounts.max())
    if most <= 0:
        return "none is free"
    return f"the largest free is {most}{unit}, on {count(int((amounts == most).sum()), 'host')}"


def count(number: int, noun: str) -> str:
    """``1 host``, ``2 hosts``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
