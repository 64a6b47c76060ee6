"""Which tests may run beside which others.

Most may run beside any. Those of whole clouds on simulated hosts (``clouds``), and those that use this machine's own
network and hypervisor (``machine``), run one after the other among their own kind; the two kinds do not meet.
"""

from pathlib import Path

import pytest
from hypothesis import settings

# The same examples each time, so that a check of a change speaks of the change. For new ones, by hand or at night:
# pytest --hypothesis-profile=search
settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("search", max_examples=1_000, deadline=None)
settings.load_profile("steady")

_HERE = Path(__file__).parent
_CLOUDS = {"functional", "services"}
_MACHINE = {"real", "e2e"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the folder they are in, or because they are marked ``real``."""
    for item in items:
        folder = item.path.relative_to(_HERE).parts[0] if item.path.is_relative_to(_HERE) else ""
        if folder in _CLOUDS:
            item.add_marker("clouds")
        elif folder in _MACHINE or item.get_closest_marker("real"):
            item.add_marker("machine")
