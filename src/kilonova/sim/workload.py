"""What simulated users do. A new operation of the product joins with one line in `OPERATIONS`.

A user asks an API process over a connection that breaks with it, waits for a while, and repeats what got no answer, as
clients and people do. What was accepted is remembered: the checker asks whether it came true.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

import msgspec.structs

from kilonova.cloud.server_creation import Created, ServerRequest
from kilonova.cloud.server_rebuild import RebuildRequest
from kilonova.model.context import RequestContext
from kilonova.model.errors import CloudError, Repeated, Unavailable
from kilonova.model.server_group import AFFINITY, ANTI_AFFINITY
from kilonova.model.states import RULES, TaskState, VMState
from kilonova.sim.faults import chance_from
from kilonova.sim.machines import ApiMachine, World

T = TypeVar("T")
Ask = Callable[[ApiMachine, RequestContext, str], Awaitable[object]]

IMAGES: Final = ("11111111-2222-4333-8444-555555555555", "22222222-2222-4333-8444-555555555555")
"""Servers are made of the first, and rebuilt with the second."""

_OTHER_DISK: Final = RebuildRequest(image_id=IMAGES[1])


@dataclass(frozen=True)
class Operation:
    """Something that users do to a server of theirs, `weight` times as often as others.

    Attributes:
        rule: of `kilonova.model.states.RULES`: users mostly ask for what is allowed. None: allowed once it was built,
            and done at once, without a task.
    """

    name: str
    weight: int
    rule: str | None
    ask: Ask

    def fits(self, vm_state: VMState) -> bool:
        """Whether it can be asked of a server that is so."""
        return vm_state is not VMState.BUILDING if self.rule is None else vm_state in RULES[self.rule].allowed


_GROUP: Final = "default"
"""The security group that every project has, and that servers are in if they do not say otherwise."""

OPERATIONS: Final = (
    Operation("stop", 3, "stop", lambda api, ctx, one: api.servers.stop(ctx, one)),
    Operation("start", 3, "start", lambda api, ctx, one: api.servers.start(ctx, one)),
    Operation("reboot", 3, "reboot_soft", lambda api, ctx, one: api.servers.reboot(ctx, one, hard=False)),
    Operation("reboot --hard", 2, "reboot_hard", lambda api, ctx, one: api.servers.reboot(ctx, one, hard=True)),
    Operation("rebuild", 2, "rebuild", lambda api, ctx, one: api.servers.rebuild(ctx, one, _OTHER_DISK)),
    Operation("leave group", 1, None, lambda api, ctx, one: api.security_groups.remove_from_server(ctx, one, _GROUP)),
    Operation("join group", 1, None, lambda api, ctx, one: api.security_groups.add_to_server(ctx, one, _GROUP)),
    Operation("delete", 1, "delete", lambda api, ctx, one: api.servers.delete(ctx, one)),
)

_DELETE: Final = next(operation for operation in OPERATIONS if operation.name == "delete")

IN_GROUP: Final = 0.4
"""Of the requests for servers, those that name a server group."""

ANSWER_S: Final = 60.0
"""Seconds after which a user gives up waiting for an answer."""

REPEATS: Final = 4

PATIENCE: Final = 2.5
"""Times the span that was meant: a cloud in which much goes wrong is slow."""


def _ids(created: Created) -> list[str]:
    return [server.id for server in created.servers]


async def _create_once(api: ApiMachine, ctx: RequestContext, wish: ServerRequest) -> list[str]:
    """Create under an ``Idempotency-Key``, the name, as the API's dispatcher does it."""
    answers = api.answers
    once = answers.once(ctx, "POST /servers", wish.name, b"")
    once.render = lambda created: (202, _ids(created))
    if known := await answers.find(once):
        return list(known[1])
    try:
        return _ids(await api.servers.create(msgspec.structs.replace(ctx, once=once), wish))
    except Repeated:  # an earlier one was heard after all
        known = await answers.find(once, wait=True)
        assert known is not None
        return list(known[1])


class ConnectionLost(Exception):
    """The API process went away, or its answer did."""


@dataclass
class Accepted:
    """What users were promised."""

    created: dict[str, str] = field(default_factory=dict)
    """Server id to the request that made it."""
    ordered: dict[str, str] = field(default_factory=dict)
    """Request to what it asked for of a server that is there, in words; where that takes a task."""
    deleted: dict[str, str] = field(default_factory=dict)
    """Server id to the request that deletes it."""
    to_go: set[str] = field(default_factory=set)
    """Servers whose deletion was asked for, with or without an answer."""
    requests: list[str] = field(default_factory=list)
    """Ids of all requests that were accepted."""
    refused: int = 0
    unanswered: int = 0


@dataclass
class _Groups:
    """A user's server groups."""

    chance: random.Random
    current: str = ""


class Users:
    """Some users of one project each, and what they still have to do."""

    def __init__(self, world: World, apis: list[ApiMachine], *, servers: int, span_s: float, users: int) -> None:
        """
        Args:
            servers: that they make in all, more or less.
            span_s: seconds within which they do everything.
        """
        self._world = world
        self._apis = apis
        self._left = servers
        self._span_s = span_s
        self._requests = 0
        self._keys = 0
        self._end = 0.0
        self.accepted = Accepted()
        self._users = users
        self._life = world.loop.begin("users")

    async def work(self) -> None:
        """Do everything, or as much as there is time for."""
        self._end = self._world.loop.time() + PATIENCE * self._span_s
        each = -(-self._left // self._users)
        tasks = [self._life.start(self._one(number, each), name=f"user-{number}") for number in range(self._users)]
        await asyncio.gather(*tasks)

    async def _one(self, number: int, servers: int) -> None:
        chance = chance_from(self._world.seed, "user", number)
        project = f"project-{number % 3}"
        groups = _Groups(chance_from(self._world.seed, "groups of user", number))
        mine: list[str] = []
        to_do = ["create"] * servers + ["act"] * (4 * servers)
        chance.shuffle(to_do)
        for what in to_do:
            await asyncio.sleep(chance.expovariate(len(to_do) / self._span_s))
            if self._world.loop.time() > self._end:
                return
            if what == "create" and self._left > 0:
                count = min(self._left, 1 if chance.random() < 0.8 else chance.randint(2, 5))
                self._left -= count
                is_keyed = count == 1 and chance.random() < 0.5
                self._keys += is_keyed
                wish = ServerRequest(
                    name=f"once-{self._keys}" if is_keyed else f"server-{number}",
                    flavor_id=chance.choices(self._world.hardware.flavors, (6, 3, 1))[0].id,
                    image_id=IMAGES[0],
                    min_count=1,
                    max_count=count,
                    scheduler_hints=await self._hints(project, groups),
                )
                mine += await self._create(project, wish)
                if mine and chance.random() < 0.15:  # deleted while it is built
                    await self._act(project, _DELETE, mine.pop())
            elif mine:
                one = chance.choice(mine)
                operation = await self._choose(project, one, chance)
                await self._act(project, operation, one)
                if operation.name == "delete":
                    mine.remove(one)

    async def _hints(self, project: str, groups: "_Groups") -> dict[str, str]:
        """Some servers belong to a server group, of which each user has one at a time."""
        if groups.chance.random() > IN_GROUP:
            return {}
        old = groups.current
        if old and groups.chance.random() < 0.15:

            async def forget(api: ApiMachine, ctx: RequestContext) -> None:
                await api.server_groups.delete(ctx, old)

            async for _ in self._ask(project, f"delete server group {old}", forget):
                groups.current = ""
        if not groups.current:
            policy, most = groups.chance.choice(((ANTI_AFFINITY, 1), (ANTI_AFFINITY, 2), (AFFINITY, 1)))

            async def make(api: ApiMachine, ctx: RequestContext) -> str:
                return (await api.server_groups.create(ctx, policy, policy, most)).id

            async for _, made in self._ask(project, f"create server group {policy} {most}", make):
                groups.current = made
        return {"group": groups.current} if groups.current else {}

    async def _choose(self, project: str, one: str, chance: random.Random) -> Operation:
        """Look at the server first, mostly wait until it is at rest, and mostly ask for something that can be done."""
        fit: list[Operation] = []
        for _ in range(chance.choice((0, 1, 4, 4, 4))):
            state = await self._look(project, one)
            fit = [operation for operation in OPERATIONS if state and operation.fits(state[0])]
            if state and state[1] is None:
                break
            await asyncio.sleep(chance.uniform(1, 10))
        fit = fit or list(OPERATIONS)
        return chance.choices(fit, [operation.weight for operation in fit])[0]

    async def _look(self, project: str, one: str) -> tuple[VMState, TaskState | None] | None:
        async def look(api: ApiMachine, ctx: RequestContext) -> tuple[VMState, TaskState | None]:
            server = (await api.servers.get(ctx, one)).server
            return server.vm_state, server.task_state

        seen = None
        async for _, state in self._ask(project, f"show {one}", look):
            seen = state
        return seen

    async def _create(self, project: str, wish: ServerRequest) -> list[str]:
        made: list[str] = []

        async def create(api: ApiMachine, ctx: RequestContext) -> list[str]:
            if wish.name.startswith("once-"):
                return await _create_once(api, ctx, wish)
            return _ids(await api.servers.create(ctx, wish))

        async for request_id, answer in self._ask(project, f"create {wish.flavor_id} x{wish.max_count}", create):
            made += [one for one in answer if one not in made]
            self.accepted.created.update(dict.fromkeys(answer, request_id))
        return made

    async def _act(self, project: str, operation: Operation, one: str) -> None:
        async def act(api: ApiMachine, ctx: RequestContext) -> None:
            await operation.ask(api, ctx, one)

        what = f"{operation.name} {one}"
        if operation.name == "delete":
            self.accepted.to_go.add(one)
        async for request_id, _ in self._ask(project, what, act):
            if operation.name == "delete":
                self.accepted.deleted[one] = request_id
            elif operation.rule is not None:
                self.accepted.ordered[request_id] = what

    async def _ask(
        self, project: str, what: str, work: Callable[[ApiMachine, RequestContext], Awaitable[T]]
    ) -> AsyncGenerator[tuple[str, T], None]:
        """Ask until there is an answer, or no patience. Yields each answer: the same may be asked twice."""
        faults, history = self._world.faults, self._world.history
        times = 2 if faults.strikes("users.repeat") else 1
        for _ in range(times):
            for attempt in range(REPEATS):
                request_id = f"req-{self._requests:06d}"
                self._requests += 1
                history.add("request", request_id, what)
                ctx = RequestContext(
                    request_id=request_id, user_id="user", project_id=project, roles=("member", "reader")
                )
                try:
                    answer = await self._once(ctx, work)
                except (ConnectionLost, TimeoutError, Unavailable) as error:
                    history.add("no answer", request_id, type(error).__name__)
                    self.accepted.unanswered += 1
                    await asyncio.sleep(1.0 + 2.0 * attempt)
                except CloudError as error:
                    history.add("refused", request_id, error.code)
                    self.accepted.refused += 1
                    break
                else:
                    history.add("accepted", request_id)
                    self.accepted.requests.append(request_id)
                    yield request_id, answer
                    break

    async def _once(self, ctx: RequestContext, work: Callable[[ApiMachine, RequestContext], Awaitable[T]]) -> T:
        api = await self._some_api()
        loop, faults = self._world.loop, self._world.faults
        answer: asyncio.Future[T] = loop.create_future()
        life = api.life
        assert life is not None

        def broken() -> None:
            if not answer.done():
                answer.set_exception(ConnectionLost())

        def answered(done: "asyncio.Task[T]") -> None:
            error = None if done.cancelled() else done.exception()
            if answer.done() or done.cancelled() or faults.strikes("users.lose_answer"):
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(done.result())

        async def serve() -> T:
            return await work(api, ctx)

        life.on_death.append(broken)
        life.start(serve(), name=ctx.request_id).add_done_callback(answered, context=loop.world.context)
        try:
            async with asyncio.timeout(ANSWER_S):
                return await answer
        finally:
            life.on_death.remove(broken)

    async def _some_api(self) -> ApiMachine:
        while True:
            up = [api for api in self._apis if api.is_up]
            if up:
                return up[self._world.faults.one_of(len(up))]
            await asyncio.sleep(0.5)
