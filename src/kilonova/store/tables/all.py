"""Imports every table module, so that both schemas are complete."""

import importlib
import pkgutil

from kilonova.store import tables
from kilonova.store.tables.base import CELL, GLOBAL

for _module in pkgutil.iter_modules(tables.__path__):
    if _module.name != "all":
        importlib.import_module(f"{tables.__name__}.{_module.name}")

__all__ = ["CELL", "GLOBAL"]
