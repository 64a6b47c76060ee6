"""Every rule that a route names is one that somebody declared: a slip would lock the route for all."""

import re
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import kilonova.api
from kilonova.api.http.routing import Api
from kilonova.cloud.policy import every_service


def test_every_rule_named_by_a_route_is_declared() -> None:
    known = {default.name for defaults in every_service().values() for default in defaults}
    unknown = set()
    for module in walk_packages(kilonova.api.__path__, "kilonova.api."):
        for thing in vars(import_module(module.name)).values():
            if isinstance(thing, Api):
                unknown |= {r.policy for r in thing.routes if r.policy is not None and r.policy not in known}
    assert unknown == set()


def test_every_rule_named_in_the_text_of_handlers_and_use_cases_is_declared() -> None:
    known = {default.name for defaults in every_service().values() for default in defaults}
    named = set()
    source = Path(kilonova.api.__path__[0]).parent
    for file in [*(source / "api").rglob("*.py"), *(source / "cloud").glob("*.py")]:
        named |= set(re.findall(r'"((?:os_compute_api|identity):[a-z_:.-]+[a-z])"', file.read_text()))
    assert named - known == set()
