"""Every error a user, an operator or another service can meet.

CloudError
├── BadRequest             400  what was sent cannot be understood or used
├── Unauthorized           401  who are you?
├── Forbidden              403  you may not
│   └── QuotaExceeded           the project would go over a limit
├── NotFound               404
├── Conflict               409
│   ├── InvalidState            the action does not fit the server's state
│   ├── Busy                    another task works on the same thing
│   └── AlreadyExists
├── Gone                   410
├── TooLarge               413
├── UnsupportedType        415
├── TooManyRequests        429
├── NotSupported           501  this driver or this cloud cannot do that (a 4xx/501 by design, never a 500)
└── Unavailable            503  not now; the same call may be tried again
    ├── DeadlinePassed          nobody answered in time
    └── NoValidHost             no host can take the server

ServiceError                    between services; users see it as the cause in a server's fault
├── ClaimLost                   somebody else took the room first
├── StaleEpoch                  a newer command for this server has been seen
├── InsufficientResources       the hypervisor has less than the guest wants; another host may do
├── HypervisorUnavailable       no answer from the hypervisor; may be tried again
├── GuestRejected               the hypervisor refuses this guest for good
├── ImageUnusable               the image cannot be fetched or is not what it says
├── NetworkFailed               a bridge, address server or rule could not be set up
└── WorkersDied                 whoever works on this step dies of it, time and again

Each is a dataclass of *facts*; the sentence for people is made by `message`. `code` is stable, for
programs, and travels over RPC with the facts, so that the same type is raised at the other end.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

_by_code: dict[str, type[CloudError]] = {}


@dataclass(eq=False)
class CloudError(Exception):
    """The root. `status` is the HTTP status, `remedy` says what the reader can do next."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "cloud.error"
    remedy: ClassVar[str] = ""
    ec2_code: ClassVar[str] = "InternalError"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "code" in cls.__dict__:
            _by_code[cls.code] = cls

    @property
    def message(self) -> str:
        """What happened, in a sentence."""
        return self.code

    def __str__(self) -> str:
        return self.message

    def facts(self) -> dict[str, Any]:
        """The error's fields, as plain JSON values."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    # Exceptions pickle and copy by args; dataclasses do not set them.
    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (self.code, self.facts()))


def _rebuild(code: str, facts: dict[str, Any]) -> CloudError:
    return from_wire(code, facts)


def from_wire(code: str, facts: dict[str, Any]) -> CloudError:
    """The error that another process raised. An unknown code becomes `RemoteFault`."""
    cls = _by_code.get(code)
    if cls is None:
        return RemoteFault(type=code, detail=str(facts.get("detail", facts)))
    names = {f.name for f in dataclasses.fields(cls)}
    return cls(**{name: value for name, value in facts.items() if name in names})


# ---- what the caller did ---------------------------------------------------------------------------


@dataclass(eq=False)
class BadRequest(CloudError):
    """`detail` is a whole sentence that names the field or value at fault."""

    detail: str
    status = 400
    code = "request.bad"
    ec2_code = "InvalidParameterValue"

    @property
    def message(self) -> str:
        return self.detail


@dataclass(eq=False)
class Unauthorized(CloudError):
    detail: str = "The request you have made requires authentication."
    status = 401
    code = "auth.required"
    remedy = "Log in again and repeat the request with the new token."
    ec2_code = "AuthFailure"

    @property
    def message(self) -> str:
        return self.detail


@dataclass(eq=False)
class Forbidden(CloudError):
    detail: str = "This is not allowed."
    status = 403
    code = "auth.forbidden"
    ec2_code = "UnauthorizedOperation"

    @property
    def message(self) -> str:
        return self.detail


@dataclass(eq=False)
class PolicyDenied(Forbidden):
    rule: str = ""
    detail: str = ""
    code = "policy.denied"
    remedy = "Ask an administrator for a role that this rule names."

    @property
    def message(self) -> str:
        return self.detail or f"Policy doesn't allow {self.rule} to be performed."


@dataclass(eq=False)
class QuotaExceeded(CloudError):
    resource: str  # "instances", "cores", "ram" (MiB), "key_pairs", "metadata_items", "port" ...
    limit: int
    used: int
    asked: int
    status = 403
    code = "quota.exceeded"
    ec2_code = "InstanceLimitExceeded"
    remedy = "Delete something of this kind, ask for less, or have an administrator raise the quota."

    @property
    def message(self) -> str:
        return (
            f"Quota exceeded for {self.resource}: Requested {self.asked}, but already used "
            f"{self.used} of {self.limit} {self.resource}"
        )


@dataclass(eq=False)
class NotFound(CloudError):
    kind: str  # "Server", "Flavor", "Image" ...
    id: str
    status = 404
    code = "not_found"
    ec2_code = "InvalidID.NotFound"

    @property
    def message(self) -> str:
        return f"{self.kind} {self.id} could not be found."


@dataclass(eq=False)
class MethodNotAllowed(CloudError):
    method: str
    path: str
    allowed: list[str] = dataclasses.field(default_factory=list)
    status = 405
    code = "request.method"

    @property
    def message(self) -> str:
        return f"{self.method} is not allowed on {self.path}; allowed are: {', '.join(self.allowed)}."


@dataclass(eq=False)
class NotAcceptable(CloudError):
    detail: str
    status = 406
    code = "request.not_acceptable"

    @property
    def message(self) -> str:
        return self.detail


@dataclass(eq=False)
class Conflict(CloudError):
    detail: str
    status = 409
    code = "conflict"
    ec2_code = "IncorrectState"

    @property
    def message(self) -> str:
        return self.detail


@dataclass(eq=False)
class Repeated(Conflict):
    """Something was done under this ``Idempotency-Key`` already."""


@dataclass(eq=False)
class AlreadyExists(Conflict):
    kind: str = "resource"
    name: str = ""
    detail: str = ""
    code = "conflict.exists"
    ec2_code = "InvalidParameterValue"

    @property
    def message(self) -> str:
        return self.detail or f"{self.kind} '{self.name}' already exists."


@dataclass(eq=False)
class InvalidState(CloudError):
    server_id: str
    action: str
    attribute: str  # "vm_state" or "task_state"
    state: str
    status = 409
    code = "server.invalid_state"
    ec2_code = "IncorrectInstanceState"
    remedy = "Wait until the server's current task has ended, or bring it to a state that allows the action."

    @property
    def message(self) -> str:
        return f"Cannot '{self.action}' instance {self.server_id} while it is in {self.attribute} {self.state}"


@dataclass(eq=False)
class Busy(CloudError):
    """Another live task holds the subject."""

    subject: str
    status = 409
    code = "task.busy"
    remedy = "Wait for the task under way to end, then repeat the request."

    @property
    def message(self) -> str:
        return f"Another operation on {self.subject} is under way."


@dataclass(eq=False)
class Gone(CloudError):
    """It was there, and will not come back."""

    detail: str
    status = 410
    code = "gone"
    ec2_code = "InvalidID.NotFound"

    @property
    def message(self) -> str:
        return self.detail


@dataclass(eq=False)
class PreconditionFailed(CloudError):
    detail: str
    status = 412
    code = "request.precondition"

    @property
    def message(self) -> str:
        return self.detail


@dataclass(eq=False)
class TooLarge(CloudError):
    limit: int  # bytes
    detail: str = ""
    status = 413
    code = "request.too_large"

    @property
    def message(self) -> str:
        return self.detail or f"The request body is larger than the {self.limit} bytes allowed here."


@dataclass(eq=False)
class UnsupportedType(CloudError):
    detail: str
    status = 415
    code = "request.media_type"

    @property
    def message(self) -> str:
        return self.detail


@dataclass(eq=False)
class TooManyRequests(CloudError):
    retry_after_s: int
    detail: str = "Too many requests."
    status = 429
    code = "request.rate"
    remedy = "Wait for the time in the Retry-After header."

    @property
    def message(self) -> str:
        return self.detail


# ---- what the cloud cannot do ----------------------------------------------------------------------


@dataclass(eq=False)
class NotSupported(CloudError):
    detail: str
    status = 501
    code = "not_supported"
    ec2_code = "Unsupported"

    @property
    def message(self) -> str:
        return self.detail


@dataclass(eq=False)
class Unavailable(CloudError):
    detail: str = "The service cannot answer now."
    retry_after_s: int = 5
    status = 503
    code = "unavailable"
    remedy = "Repeat the same request after the time in the Retry-After header."
    ec2_code = "Unavailable"

    @property
    def message(self) -> str:
        return self.detail


@dataclass(eq=False)
class DeadlinePassed(Unavailable):
    method: str = ""
    target: str = ""
    deadline_s: float = 0.0
    detail: str = ""
    code = "rpc.deadline"

    @property
    def message(self) -> str:
        return f"No answer to {self.method} from {self.target} within {self.deadline_s:g} s."


@dataclass(eq=False)
class NoValidHost(CloudError):
    """`detail` says in plain words what was missing; `reasons` maps a filter to how many hosts it removed."""

    detail: str
    reasons: dict[str, int] = dataclasses.field(default_factory=dict)
    explanation: dict[str, Any] = dataclasses.field(default_factory=dict)
    status = 503
    code = "scheduler.no_valid_host"
    remedy = "Ask for less, ask for another zone, or have an administrator add hosts."
    ec2_code = "InsufficientInstanceCapacity"

    @property
    def message(self) -> str:
        return f"No valid host was found. {self.detail}"


# ---- RPC -------------------------------------------------------------------------------------------


@dataclass(eq=False)
class UnknownMethod(CloudError):
    topic: str
    method: str
    code = "rpc.unknown_method"

    @property
    def message(self) -> str:
        return f"{self.topic} has no method {self.method}."


@dataclass(eq=False)
class BadArguments(CloudError):
    """The arguments of a message do not fit its method. `detail` names the argument."""

    topic: str
    method: str
    detail: str
    code = "rpc.bad_arguments"

    @property
    def message(self) -> str:
        return f"{self.topic}.{self.method} cannot be called so: {self.detail}"


@dataclass(eq=False)
class UnsupportedVersion(CloudError):
    topic: str
    asked: str
    offered: str
    code = "rpc.unsupported_version"
    remedy = "Upgrade the older of the two services."

    @property
    def message(self) -> str:
        return f"{self.topic} speaks version {self.offered}, not {self.asked}."


@dataclass(eq=False)
class MessageTooLarge(CloudError):
    size: int  # bytes
    limit: int  # bytes
    code = "rpc.message_too_large"

    @property
    def message(self) -> str:
        return f"A message of {self.size} bytes is over the limit of {self.limit}."


@dataclass(eq=False)
class RemoteFault(CloudError):
    """The other service met an error that is not one of ours. `type` is its class name."""

    type: str
    detail: str
    code = "rpc.remote_fault"

    @property
    def message(self) -> str:
        return f"{self.type}: {self.detail}"


# ---- between services ------------------------------------------------------------------------------


@dataclass(eq=False)
class ServiceError(CloudError):
    detail: str
    code = "service.error"

    @property
    def message(self) -> str:
        return self.detail


@dataclass(eq=False)
class ClaimLost(ServiceError):
    """No candidate has room any more for `resource_class`."""

    resource_class: str = ""
    detail: str = ""
    code = "claim.lost"

    @property
    def message(self) -> str:
        return f"No candidate host has room for {self.resource_class or 'this request'} any more."


@dataclass(eq=False)
class StaleEpoch(ServiceError):
    server_id: str = ""
    epoch: int = 0
    seen: int = 0
    detail: str = ""
    code = "agent.stale_epoch"

    @property
    def message(self) -> str:
        return f"Command for {self.server_id} has epoch {self.epoch}, but {self.seen} has been seen."


@dataclass(eq=False)
class InsufficientResources(ServiceError):
    code = "host.insufficient_resources"
    remedy = "Another host may do."


@dataclass(eq=False)
class HypervisorUnavailable(ServiceError):
    code = "host.hypervisor_unavailable"
    remedy = "Look at the hypervisor's own log on that host; the operation can be tried again."


@dataclass(eq=False)
class GuestRejected(ServiceError):
    code = "host.guest_rejected"
    remedy = "Change the flavor's extra specs or the image's properties."


@dataclass(eq=False)
class HostDown(ServiceError):
    code = "host.down"
    remedy = "Look at the host; its agent cleans up when it returns."


@dataclass(eq=False)
class GuestNotFound(ServiceError):
    code = "host.guest_not_found"


@dataclass(eq=False)
class ImageUnusable(ServiceError):
    code = "host.image_unusable"
    remedy = "Upload the image again with the right disk_format."


@dataclass(eq=False)
class NetworkFailed(ServiceError):
    code = "host.network_failed"
    remedy = "Look at the network agent's log on that host."


@dataclass(eq=False)
class WorkersDied(ServiceError):
    """A step of a task was taken over again and again, and never came to an end."""

    take_overs: int = 0
    detail: str = ""
    code = "task.workers_died"
    remedy = "Look at what the conductors' logs and their supervisor say of their ends."

    @property
    def message(self) -> str:
        return f"{self.take_overs} conductors died while they did this step."
