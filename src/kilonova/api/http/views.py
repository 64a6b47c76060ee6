"""How an object is shown: a table of fields, each with the microversions in which it exists."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kilonova.api.http.microversions import UNVERSIONED, Band, Version


@dataclass(frozen=True)
class Field:
    """One key of a JSON object: its name, where its value comes from, and `since`/`until` which microversion."""

    name: str
    get: Callable[[Any], Any]
    since: str | None = None
    until: str | None = None
    band: Band = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "band", Band.parse(self.since, self.until))


class View:
    """An object's fields, in the order in which they are shown.

    The same name may stand twice with bands that do not overlap, for a field that changed its form.
    """

    def __init__(self, *fields: Field) -> None:
        for index, one in enumerate(fields):
            for other in fields[index + 1 :]:
                if one.name == other.name and one.band.overlaps(other.band):
                    raise TypeError(f"The field {one.name} is declared twice for some microversions.")
        self.fields = fields
        # At most one entry a microversion that the API speaks: negotiation lets no other in.
        self._plans: dict[Version, tuple[tuple[str, Callable[[Any], Any]], ...]] = {}

    def render(self, subject: Any, version: Version = UNVERSIONED) -> dict[str, Any]:
        """`subject` as it is shown to a client of microversion `version`."""
        plan = self._plans.get(version)
        if plan is None:
            plan = self._plans[version] = tuple((f.name, f.get) for f in self.fields if version in f.band)
        return {name: get(subject) for name, get in plan}

    def plus(self, *fields: Field) -> "View":
        """This view with more fields after its own."""
        return View(*self.fields, *fields)
