"""Which tests may run beside others: all but those that use real parts, or a whole cloud, of this machine."""

from pathlib import Path

import pytest
from hypothesis import settings

# The same examples each time, so that a check of a change speaks of the change. For new ones, by hand or at night:
# pytest --hypothesis-profile=search
settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("search", max_examples=1_000, deadline=None)
settings.load_profile("steady")

_HERE = Path(__file__).parent
_WHOLE_CLOUD = {"functional", "real", "services", "e2e"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests ``serial`` by the folder they are in, or because they are marked ``real``.

    `make test` runs the others on all processors first, and these one after the other.
    """
    for item in items:
        folder = item.path.relative_to(_HERE).parts[0] if item.path.is_relative_to(_HERE) else ""
        if folder in _WHOLE_CLOUD or item.get_closest_marker("real"):
            item.add_marker("serial")
