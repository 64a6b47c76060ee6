"""Microversions: what a client may ask for, and what a thing (route, field) is valid for.

A request names one version in ``OpenStack-API-Version: <service> 2.N`` (or, for compute, in the older
``X-OpenStack-Nova-API-Version: 2.N``); without a header it gets the oldest. Nothing but this module
reads those headers, and no handler compares versions where a `Band` on a route or field would do.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

from kilonova.model.errors import BadRequest, NotAcceptable

_FORM = re.compile(r"([1-9]\d{0,3})\.(0|[1-9]\d{0,3})\Z")


class Version(NamedTuple):
    """``2.19`` as something that compares as numbers do."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        Raises:
            ValueError: `text` is not two whole numbers with a point between.
        """
        match = _FORM.match(text)
        if match is None:
            raise ValueError(f"{text!r} is not a version of the form Major.Minor")
        return cls(int(match[1]), int(match[2]))

    @property
    def next(self) -> "Version":
        """The version that comes right after this one."""
        return Version(self.major, self.minor + 1)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


UNVERSIONED = Version(0, 0)
"""The microversion of a request to an API that has none."""


@dataclass(frozen=True)
class Band:
    """The versions from `since` to `until`, both included; None is no bound."""

    since: Version | None = None
    until: Version | None = None

    @classmethod
    def parse(cls, since: str | None, until: str | None) -> Self:
        """A band from the texts that routes and fields are declared with."""
        return cls(Version.parse(since) if since else None, Version.parse(until) if until else None)

    def __contains__(self, version: Version) -> bool:
        return (self.since is None or version >= self.since) and (self.until is None or version <= self.until)

    def overlaps(self, other: "Band") -> bool:
        """Whether some version is in both."""
        return not (
            (self.until is not None and other.since is not None and self.until < other.since)
            or (other.until is not None and self.since is not None and other.until < self.since)
        )


@dataclass(frozen=True)
class Microversions:
    """The range that one API speaks, and the headers that choose from it."""

    service: str
    """The service's type in ``OpenStack-API-Version``."""
    oldest: Version
    newest: Version
    legacy_header: str | None = None
    """An older header (lower case) with nothing but the version in it."""

    def negotiate(self, headers: Mapping[str, str]) -> Version:
        """The version that this request is for.

        Raises:
            BadRequest: the header does not have the form of a version.
            NotAcceptable: this API does not speak that version.
        """
        text = self._asked(headers)
        if text is None:
            return self.oldest
        if text == "latest":
            return self.newest
        try:
            version = Version.parse(text)
        except ValueError:
            raise BadRequest(
                f"API Version String '{text[:40]}' is of invalid format. Must be of format MajorNum.MinorNum."
            ) from None
        if not self.oldest <= version <= self.newest:
            raise NotAcceptable(
                f"Version {version} is not supported by the API. Minimum is {self.oldest} and maximum is {self.newest}."
            )
        return version

    def _asked(self, headers: Mapping[str, str]) -> str | None:
        # One header may carry a version for each of several services, separated by commas.
        for part in headers.get("openstack-api-version", "").split(","):
            service, _, version = part.strip().partition(" ")
            if service.lower() == self.service:
                return version.strip().lower()
        if self.legacy_header is not None and self.legacy_header in headers:
            return headers[self.legacy_header].strip().lower()
        return None

    def response_headers(self, version: Version) -> list[tuple[bytes, bytes]]:
        """What a client reads to know which version it was answered in."""
        text = str(version).encode()
        headers = [(b"openstack-api-version", self.service.encode() + b" " + text)]
        vary = b"OpenStack-API-Version"
        if self.legacy_header is not None:
            headers.append((self.legacy_header.encode(), text))
            vary += b", X-OpenStack-Nova-API-Version"
        return [*headers, (b"vary", vary)]
