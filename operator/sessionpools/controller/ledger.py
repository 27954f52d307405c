"""What stands on each node and who is to have what there, kept in step with the caches while nodes have a limit of
sessions (core.limits). The store tells it of every change; pools ask it before they decide, and tell it what they have
decided, so that two pools that decide at the same moment do not take the same places.

A node's numbers are reckoned again only after something there has changed: a pool's run costs a look-up for each node,
and a pod's coming and going a sum over the pools of its node. Who waits for places is called when some become free.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from sessionpools.api.v1alpha1 import SessionPool
from sessionpools.core.limits import Claim, claim_of, entitled, slots_in, slots_of, slots_of_new
from sessionpools.core.model import NodeView, PodView
from sessionpools.core.placement import place
from sessionpools.core.plan import Plan

__all__ = ["Ledger"]


@dataclass(slots=True)
class _Node:
    view: NodeView | None = None
    standing: dict[str, int] = field(default_factory=dict)  # sessions by pool uid, as the watch shows them
    decided: dict[str, int] = field(default_factory=dict)  # the same with those that are on their way
    belong: set[str] = field(default_factory=set)  # uids of the pools for which it is a compute node
    waiting: dict[str, SessionPool] = field(default_factory=dict)  # by pool uid
    most: dict[str, int] | None = None  # by pool uid; None: to be reckoned


@dataclass(slots=True)
class _Claimant:
    pool: SessionPool
    claim: Claim
    blocked: bool = False  # nothing can be started for it now; not known before its first run


class Ledger:
    """`wake` is told of each pool that waits, once, when places have become free."""

    def __init__(self, limit: int, wake: Callable[[SessionPool], None]) -> None:
        self.limit = limit
        self._wake = wake
        self._nodes: dict[str, _Node] = {}
        self._claimants: dict[str, _Claimant] = {}

    # --- what the store tells -----------------------------------------------------------------------------------------

    def pool_changed(self, old: SessionPool | None, new: SessionPool | None) -> None:
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            self._claimants.pop(old.metadata.uid, None)
            for node in self._nodes.values():
                node.belong.discard(old.metadata.uid)
                node.decided.pop(old.metadata.uid, None)
                node.waiting.pop(old.metadata.uid, None)
                self._freed(node)
        if new is None:
            return
        known = self._claimants.get(new.metadata.uid)
        if known and known.pool.metadata.generation == new.metadata.generation and _same_life(known.pool, new):
            return
        claimant = _Claimant(new, claim_of(new), known.blocked if known else False)
        self._claimants[new.metadata.uid] = claimant
        same_size = known is not None and known.claim == claimant.claim
        for node in self._nodes.values():
            before, belongs = new.metadata.uid in node.belong, _belongs(new, node.view)
            if same_size and before == belongs:
                continue
            if belongs:
                node.belong.add(new.metadata.uid)
            else:
                node.belong.discard(new.metadata.uid)
            self._freed(node)

    def node_changed(self, old: NodeView | None, new: NodeView | None) -> None:
        view = new or old
        if view is None:
            return
        node = self._node(view.name)
        node.view = new
        node.belong = {uid for uid, claimant in self._claimants.items() if _belongs(claimant.pool, new)}
        node.most = None
        self._drop_if_empty(view.name)

    def pod_changed(self, old: PodView | None, new: PodView | None) -> None:
        before, now = _place(old), _place(new)
        if before == now:
            return
        for place_, sign in ((before, -1), (now, 1)):
            if place_ is None:
                continue
            name, uid, slots = place_
            node = self._node(name)
            node.standing[uid] = node.standing.get(uid, 0) + sign * slots
            if not node.standing[uid]:
                del node.standing[uid]
            node.most = None
            if sign < 0:
                self._freed(node)
                self._drop_if_empty(name)

    # --- what a pool's run asks and tells -----------------------------------------------------------------------------

    def blocked(self, uid: str, blocked: bool) -> None:
        """Whether nothing can be started for this pool: then others need keep nothing for it."""
        claimant = self._claimants.get(uid)
        if claimant is None or claimant.blocked == blocked:
            return
        claimant.blocked = blocked
        for node in self._nodes.values():
            if uid in node.belong:
                self._freed(node)

    def most(self, uid: str, nodes: Iterable[str]) -> dict[str, int]:
        """How many sessions the pool may have on each of these nodes."""
        found = {}
        for name in nodes:
            node = self._node(name)
            if node.most is None:
                node.most = self._reckon(node)
            found[name] = node.most.get(uid, 0)
        return found

    def decided(
        self,
        pool: SessionPool,
        pods: Sequence[PodView],
        plan: Plan,
        waits: Collection[str],
        awaited: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """What is about to be done for the pool, `pods` being there, and the nodes where it `waits` for places.
        `awaited` are its sessions by node that the watch does not show yet and that the plan does not ask for."""
        uid = pool.metadata.uid
        if uid not in self._claimants:
            return  # it was deleted while its run waited for something: nobody would ever take this back
        after = _after(pool, pods, plan)
        for name, node in self._nodes.items():
            sessions = after.get(name)
            if name in awaited:
                sessions = max(sessions or 0, node.standing.get(uid, 0)) + awaited[name]
            self._decide(node, uid, sessions)
            if name in waits:
                node.waiting[uid] = pool
            else:
                node.waiting.pop(uid, None)

    def refused(self, pool: SessionPool, nodes: Iterable[str], awaited: Mapping[str, int]) -> None:
        """Not all session pods were created there: of those that were, `awaited` sessions are not shown yet."""
        uid = pool.metadata.uid
        for name in nodes:
            if node := self._nodes.get(name):  # else it has gone meanwhile
                on_their_way = awaited.get(name, 0)
                self._decide(node, uid, node.standing.get(uid, 0) + on_their_way if on_their_way else None)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _node(self, name: str) -> _Node:
        return self._nodes.setdefault(name, _Node())

    def _drop_if_empty(self, name: str) -> None:
        node = self._nodes[name]
        if node.view is None and not node.standing:
            del self._nodes[name]

    def _decide(self, node: _Node, uid: str, sessions: int | None) -> None:
        before = _count(node, uid)
        if sessions is None:
            node.decided.pop(uid, None)
        else:
            node.decided[uid] = sessions
        after = _count(node, uid)
        if after < before:
            self._freed(node)
        elif after > before:
            node.most = None

    def _freed(self, node: _Node) -> None:
        node.most = None
        waiting, node.waiting = node.waiting, {}
        for pool in waiting.values():
            self._wake(pool)

    def _reckon(self, node: _Node) -> dict[str, int]:
        claims = {}
        for uid in node.belong | node.standing.keys() | node.decided.keys():
            claimant, standing = self._claimants.get(uid), _count(node, uid)
            if claimant is None:
                claims[uid] = Claim(standing=standing)
                continue
            of = claimant.claim
            initial = 0 if claimant.blocked or uid not in node.belong else of.initial
            claims[uid] = Claim(of.since, initial, of.at_once, standing)
        return entitled(claims, self.limit)


def _count(node: _Node, uid: str) -> int:
    """Sessions of the pool there, with those on their way that the watch does not show yet."""
    return max(node.standing.get(uid, 0), node.decided.get(uid, 0))


def _after(pool: SessionPool, pods: Sequence[PodView], plan: Plan) -> dict[str, int]:
    """The sessions that will stand on the nodes where the plan makes more of them."""
    more: dict[str, int] = {}
    for create in plan.creates:
        more[create.node.name] = more.get(create.node.name, 0) + slots_of_new(pool)
    for patch in plan.patches:
        if (larger := slots_in(patch.settings) - slots_of(patch.pod)) > 0:
            more[patch.pod.owner.node] = more.get(patch.pod.owner.node, 0) + larger
    for pod in pods:
        if pod.owner.node in more and not pod.ended:
            more[pod.owner.node] += slots_of(pod)
    return more


def _place(pod: PodView | None) -> tuple[str, str, int] | None:
    """Where it stands, for whom, and as how many sessions; None if it holds nothing."""
    return None if pod is None or pod.ended else (pod.owner.node, pod.owner.pool_uid, slots_of(pod))


def _belongs(pool: SessionPool, node: NodeView | None) -> bool:
    return (
        node is not None and pool.metadata.deletion_timestamp is None and place(pool.spec.placement, node).compute_node
    )


def _same_life(old: SessionPool, new: SessionPool) -> bool:
    return old.metadata.deletion_timestamp == new.metadata.deletion_timestamp
