"""The faces of an error: each service's own form of the same facts.

A form turns a `Failure` into a body. Clients of each service look for their own shape: compute wants
``{"itemNotFound": {"code", "message"}}``, identity ``{"error": {...}}``, network ``{"NeutronError": {...}}``, image
HTML with the sentence in it. What is not authenticated is answered in identity's form everywhere,
because there it comes from the same middleware in every OpenStack service.
"""

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import orjson

from kilonova.model.errors import CloudError, NotFound, PolicyDenied, QuotaExceeded

JSON = "application/json"


@dataclass(frozen=True)
class Failure:
    """What went wrong, ready to be shown."""

    status: int
    message: str
    remedy: str = ""
    error: CloudError | None = None
    """None if it is a bug of ours."""
    retry_after_s: int | None = None
    request_id: str = ""
    base_url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, error: BaseException, *, request_id: str, base_url: str) -> "Failure":
        """The face of `error`. What is not a `CloudError` shows nothing of itself but the request's id."""
        if not isinstance(error, CloudError):
            return cls(
                500,
                f"The service failed on this request. An operator finds the cause in the log under {request_id}.",
                request_id=request_id,
                base_url=base_url,
            )
        headers: dict[str, str] = {}
        if error.status == 405:
            headers["Allow"] = ", ".join(getattr(error, "allowed", []))
        retry_after_s = getattr(error, "retry_after_s", None)
        if retry_after_s is not None:
            headers["Retry-After"] = str(retry_after_s)
        if error.status == 401:
            headers["WWW-Authenticate"] = f'Keystone uri="{base_url}/identity"'
        # An error's text may quote what a client sent, in whatever state.
        message = error.message.encode("utf-8", "replace").decode()
        return cls(error.status, message, error.remedy, error, retry_after_s, request_id, base_url, headers)

    @property
    def title(self) -> str:
        """``Not Found``."""
        return HTTPStatus(self.status).phrase

    @property
    def sentence(self) -> str:
        """What happened, and what to do about it."""
        return f"{self.message} {self.remedy}" if self.remedy else self.message


@dataclass(frozen=True)
class Face:
    """An error as it is sent."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


ErrorForm = Callable[[Failure], Face]
"""Renders a failure in one service's form. Never fails itself."""


def _json(failure: Failure, body: dict[str, Any], status: int | None = None) -> Face:
    return Face(status or failure.status, orjson.dumps(body), JSON, failure.headers)


_NOVA_NAMES = {
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    409: "conflictingRequest",
    413: "overLimit",
    415: "badMediaType",
    429: "overLimit",
    501: "notImplemented",
    503: "serviceUnavailable",
}


def NOVA_ERRORS(failure: Failure) -> Face:
    """``{"badRequest": {"code": 400, "message": "..."}}``; also the form of block storage."""
    if failure.status == 401:
        return KEYSTONE_ERRORS(failure)
    inner: dict[str, Any] = {"code": failure.status, "message": failure.sentence}
    name = _NOVA_NAMES.get(failure.status, "computeFault")
    if failure.retry_after_s is not None and name == "overLimit":
        inner["retryAfter"] = str(failure.retry_after_s)
    return _json(failure, {name: inner})


def KEYSTONE_ERRORS(failure: Failure) -> Face:
    """``{"error": {"code": 404, "message": "...", "title": "Not Found"}}``."""
    inner = {"code": failure.status, "message": failure.sentence, "title": failure.title}
    return _json(failure, {"error": inner})


def NEUTRON_ERRORS(failure: Failure) -> Face:
    """``{"NeutronError": {"type": "...", "message": "...", "detail": ""}}``."""
    if failure.status == 401:
        return KEYSTONE_ERRORS(failure)
    inner = {"type": _neutron_type(failure), "message": failure.message, "detail": failure.remedy}
    # In the Network API a full quota is a conflict.
    return _json(failure, {"NeutronError": inner}, 409 if isinstance(failure.error, QuotaExceeded) else None)


def _neutron_type(failure: Failure) -> str:
    error = failure.error
    if isinstance(error, NotFound):
        return f"{error.kind.replace(' ', '')}NotFound"
    if isinstance(error, QuotaExceeded):
        return "OverQuota"
    if isinstance(error, PolicyDenied):
        return "PolicyNotAuthorized"
    declared = getattr(error, "neutron_type", None)
    return str(declared) if declared else f"HTTP{failure.title.replace(' ', '')}"


def GLANCE_ERRORS(failure: Failure) -> Face:
    """HTML with the sentence as its text: the form that image clients take their message from."""
    if failure.status == 401:
        return KEYSTONE_ERRORS(failure)
    head = f"{failure.status} {failure.title}"
    page = (
        f"<html>\n <head>\n  <title>{head}</title>\n </head>\n <body>\n  <h1>{head}</h1>\n"
        f"  {html.escape(failure.sentence, quote=False)}<br /><br />\n\n </body>\n</html>"
    )
    return Face(failure.status, page.encode(), "text/html; charset=UTF-8", failure.headers)


def JSON_ERRORS(failure: Failure) -> Face:
    """For our own endpoints: code, message and remedy apart."""
    inner = {
        "status": failure.status,
        "code": failure.error.code if failure.error is not None else "internal",
        "message": failure.message,
        "remedy": failure.remedy,
        "request_id": failure.request_id,
    }
    return _json(failure, {"error": inner})


def TEXT_ERRORS(failure: Failure) -> Face:
    """One line of plain text, for the metadata service."""
    return Face(failure.status, f"{failure.sentence}\n".encode(), "text/plain; charset=utf-8", failure.headers)
