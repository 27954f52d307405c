"""What it costs that callers bring a token: gateways that verify one and one that asks for none, each before a session
of the same pod.

A connection remembers the token that it verified last. So a caller that keeps its connection and its token is measured,
and one whose calls bring two tokens in turn, each of which has to be verified.
"""

from contextlib import ExitStack
from functools import partial
from itertools import cycle

from bench import services
from bench.client import Caller, request_bytes
from bench.compare import interleaved
from bench.cpu import cpu_microseconds
from bench.figures import Figure, median_of, progress
from bench.gateway import Pool, gateway
from bench.priority import preferred
from bench.services import Server, Service
from bench.warm import await_quiet
from support.tokens import key

KEPT, IN_TURN, NONE, SESSION = "one token", "two tokens in turn", "no token", "session"
_ROUNDS, _CALLS = 13, 200


class _TwoTokens(Caller):
    """A connection on which each call brings another token than the one before."""

    def __init__(self, server: Server, service: Service) -> None:
        super().__init__(server.port, service.inputs, server.path, server.token)
        other = request_bytes(service.inputs, server.path, token=key("bench").token(sub="grace"))
        self._requests = cycle((self.request, other))

    def send(self) -> None:
        self.sock.sendall(next(self._requests))


def measure(quick: bool) -> list[Figure]:
    rounds, calls = (3, 50) if quick else (_ROUNDS, _CALLS)
    service = services.ridge()
    with ExitStack() as stack:
        progress("tokens: start sessions behind three gateways")
        pod = stack.enter_context(services.session_pod(service, 4))
        pools = {name: Pool(pod, 1, first=slot) for slot, name in enumerate((KEPT, IN_TURN, NONE))}
        fronts = {name: stack.enter_context(gateway(pool, tokens=name != NONE)) for name, pool in pools.items()}
        servers = {name: front.server(pools[name]) for name, front in fronts.items()}
        servers[SESSION] = Server(pod.base_port + 3, services.pids(pod)[0])
        for name, server in servers.items():
            await_quiet(name, server, service)
        callers: dict[str, Caller] = {
            name: stack.enter_context(
                _TwoTokens(server, service)
                if name == IN_TURN
                else Caller(server.port, service.inputs, server.path, server.token)
            )
            for name, server in servers.items()
        }
        pids = [pid for front in fronts.values() for pid in front.pids]
        stack.enter_context(preferred([*pids, *services.pids(pod)]))
        for caller in callers.values():
            caller.p50(calls)  # warm, and thrown away
        progress(f"tokens: {rounds} rounds of {calls} calls to each")
        cpu: dict[str, list[float]] = {name: [] for name in fronts}

        def block(name: str) -> float:
            if name not in fronts:
                return callers[name].p50(calls)
            before = cpu_microseconds([fronts[name].pid])
            p50 = callers[name].p50(calls)
            cpu[name].append((cpu_microseconds([fronts[name].pid]) - before) / calls)
            return p50

        found = interleaved({name: partial(block, name) for name in callers}, rounds)
    kept = [(each[KEPT] - each[NONE]) for each in found.rounds]
    verified = [(each[IN_TURN] - each[NONE]) for each in found.rounds]
    return [
        median_of("tokens: gateway against itself", found.control, "x"),
        median_of("a token that the connection brings again adds to p50", kept, "µs", found.valid),
        median_of("a token that is verified adds to p50", verified, "µs", found.valid),
        *(median_of(f"tokens: HAProxy's CPU per call, {name}", used, "µs") for name, used in cpu.items()),
        *(median_of(f"tokens: p50, {name}", found.p50s(name), "µs") for name in servers),
    ]
