"""What to simulate, and what a run showed."""

from dataclasses import dataclass, fields

from kilonova.sim.faults import NOTHING, RATES, LeftOut, shortest


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to simulate."""

    seed: int
    hosts: int = 3
    servers: int = 5
    faults: tuple[str, ...] = tuple(RATES)
    """Kinds of faults."""
    conductors: int = 2
    schedulers: int = 2
    apis: int = 2
    span_s: float = 120.0
    """Simulated seconds in which users ask and things go wrong; then there is peace, until all is quiet."""
    hardware: str = "plain"
    """Of `HARDWARE`: what hosts are made of, and what flavors ask for."""
    left_out: LeftOut = NOTHING
    """Faults that do not happen."""

    def command(self) -> str:
        """The command line that runs it."""
        words = [f"kilonova simulate --seed {self.seed} --hosts {self.hosts} --servers {self.servers}"]
        defaults = {field.name: field.default for field in fields(Plan)}
        for name in ("conductors", "schedulers", "apis", "hardware"):
            if getattr(self, name) != defaults[name]:
                words.append(f"--{name} {getattr(self, name)}")
        if self.span_s != defaults["span_s"]:
            words.append(f"--span {self.span_s:g}")
        words.append(f"--faults {shortest(self.faults)}")
        if str(self.left_out):
            words.append(f"--without {self.left_out}")
        return " ".join(words)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run showed. Printed as one JSON object."""

    seed: int
    hosts: int
    servers: int
    faults: list[str]
    events: int
    """Lines of the history."""
    steps: int
    """Callbacks of the event loop."""
    simulated_s: float
    quiet_after_s: float
    """Simulated seconds from the last fault until everything was at rest."""
    faults_drawn: int
    """Faults that were to happen, those left out included."""
    kills: int
    kill_points: dict[str, int]
    """Kind of task to the kills that happened while such a one was under way."""
    messages_lost: int
    struck: dict[str, int]
    """Faults by kind."""
    requests: int
    servers_created: int
    servers_active: int
    servers_deleted: int
    servers_error: int
    stuck: int
    leaked: int
    doubled: int
    violations: list[str]
    """What was found, once for each rule and what broke it; empty: all is as promised."""
    history_hash: str
    wall_s: float
