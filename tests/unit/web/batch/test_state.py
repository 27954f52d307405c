"""What is known of a batch and how it changes; and that no item is sent twice, whatever dies between any two writes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sessionpools.web.batch import state as states
from sessionpools.web.batch.state import Progress, Service, State
from support.seed import SEED

SERVICE = Service("demo", "Score", "v1")
NEW = State("id", SERVICE, "ann", total=5, parallel=2, created=1000.0)
WEEK = states.RESULTS_SECONDS


def claimed(state: State, count: int) -> State:
    return states.advanced(state, Progress(claim=count))


# --- one change -------------------------------------------------------------------------------------------------------


def test_a_new_batch_waits() -> None:
    assert (NEW.waiting, NEW.completed, NEW.word) == (5, 0, "pending")
    assert not states.done(NEW)


def test_items_are_claimed_in_order_and_no_more_than_there_are() -> None:
    first = claimed(states.taken(NEW, "a"), 2)
    assert (first.claimed, first.waiting, first.completed, first.word) == ((0, 1), 3, 0, "inProgress")
    assert claimed(first, 9).claimed == (0, 1, 2, 3, 4)


def test_what_is_settled_is_complete_and_what_did_not_run_is_claimed_again_first() -> None:
    state = claimed(states.taken(NEW, "a"), 3)
    state = states.advanced(state, Progress(settled={0}, returned={1}, segments=("1-2",), result_bytes=9, claim=2))
    assert state.claimed == (1, 2, 3)
    assert state.free == ()
    assert (state.completed, state.waiting, state.segments, state.result_bytes) == (1, 1, ("1-2",), 9)
    assert [states.settled(state, item) for item in range(5)] == [True, False, False, False, False]


def test_what_was_claimed_by_another_is_lost_and_told() -> None:
    state = states.taken(claimed(states.taken(NEW, "a"), 2), "b")
    assert (state.lost, state.claimed, state.holder, state.token) == ((0, 1), (), "b", 2)
    assert state.completed == 2
    assert states.without_result(state) == {0: states.LOST, 1: states.LOST}
    assert claimed(state, 9).claimed == (2, 3, 4)


def test_a_batch_ends_when_nothing_waits_and_nothing_is_claimed() -> None:
    state = claimed(states.taken(replace(NEW, total=1), "a"), 1)
    assert not states.done(state)
    state = states.advanced(state, Progress(settled={0}))
    assert states.done(state)
    state = states.finished(state, 2000.0)
    assert (state.word, state.completed, state.holder) == ("complete", 1, "")


def test_a_batch_that_is_given_up_says_so_of_what_was_not_begun() -> None:
    state = states.advanced(claimed(states.taken(NEW, "a"), 2), Progress(settled={0}, returned={1}))
    assert not states.given_up(state, 1000.0 + WEEK)
    assert states.given_up(state, 1001.0 + WEEK)
    state = states.finished(state, 1001.0 + WEEK)
    assert states.without_result(state) == dict.fromkeys((1, 2, 3, 4), states.DROPPED)
    assert state.completed == 5


def test_results_are_kept_for_a_week_after_the_end() -> None:
    assert not states.expired(NEW, 1000.0 + 9 * WEEK)
    ended = states.finished(NEW, 5000.0)
    assert not states.expired(ended, 5000.0 + WEEK)
    assert states.expired(ended, 5001.0 + WEEK)
    assert states.expired(states.deleted(NEW), 0.0)


def test_each_change_makes_another_record() -> None:
    state = states.taken(NEW, "a")
    for changed in (states.taken(state, "a"), states.advanced(state, Progress()), states.released(state)):
        assert changed.dump() != state.dump()


def test_a_record_comes_back_as_it_was_written_with_the_results_behind_it() -> None:
    state = states.advanced(claimed(states.taken(NEW, "ä\n"), 3), Progress(settled={1}, segments=("1-1",)))
    assert State.parse(state.dump(b'1 {"success":true}\n')) == (state, b'1 {"success":true}\n')
    assert State.parse(NEW.dump()) == (NEW, b"")


@pytest.mark.parametrize(
    ("idle", "queued", "per_second", "wanted"),
    [
        (10, 0, 0.0, 10),  # at first: one for each worker
        (0, 0, 0.5, 0),  # everyone is busy, with calls of seconds
        (1, 0, 0.5, 1),
        (0, 0, 200.0, 100),  # short calls: as many as half a second takes
        (0, 60, 200.0, 0),  # enough for now
        (0, 50, 200.0, 50),
        (100, 0, 9999.0, states.MAX_CLAIM),
    ],
)
def test_no_more_is_claimed_than_is_soon_begun(idle: int, queued: int, per_second: float, wanted: int) -> None:
    assert states.claim_count(idle, queued, per_second) == wanted


# --- any sequence of changes, by two who each may stand still, die, or not hear of what they wrote --------------------


@dataclass
class Replica:
    """One who works on the batch, and what it knows: nothing of this outlives it."""

    name: str
    seen: State | None = None  # the record as read last
    held: State | None = None  # the record as it wrote it last, if it believes to hold the batch
    unsure: State | None = None  # a write without an answer, and what it says of which items
    settles: frozenset[int] = frozenset()
    returns: frozenset[int] = frozenset()
    queue: list[int] = field(default_factory=list)
    busy: dict[int, bool] = field(default_factory=dict)  # item under way → whether it runs
    results: set[int] = field(default_factory=set)
    returned: set[int] = field(default_factory=set)


replicas = st.sampled_from((0, 1))


class TwoReplicas(RuleBasedStateMachine):
    """The store is one record; everything else may be forgotten at any time. Nobody looks at a clock: any of the two
    may take the batch from the other at any moment, which is more than a lease allows.
    """

    @initialize(total=st.integers(1, 12))
    def start(self, total: int) -> None:
        self.record = replace(NEW, total=total)
        self.replicas = [Replica("a"), Replica("b")]
        self.runs: Counter[int] = Counter()
        self.kept: set[int] = set()  # items whose results are behind the record

    @rule(r=replicas)
    def read(self, r: int) -> None:
        self.replicas[r].seen = self.record

    @rule(r=replicas)
    def take(self, r: int) -> None:
        me = self.replicas[r]
        if me.seen is None or me.held is not None or me.seen.finished or me.seen.deleted:
            return
        ours = states.taken(me.seen, me.name)
        if self.record == me.seen:  # compare-and-swap
            self.record = ours
            self.replicas[r] = Replica(me.name, held=ours)
        else:
            me.seen = None

    @rule(r=replicas, runs=st.booleans(), data=st.data())
    def begin(self, r: int, runs: bool, data: st.DataObject) -> None:
        """Send a claimed item; also by one who no longer holds the batch and does not know it yet."""
        me = self.replicas[r]
        if me.queue:
            item = me.queue.pop(data.draw(st.integers(0, len(me.queue) - 1)))
            me.busy[item] = runs
            self.runs[item] += runs

    @rule(r=replicas, data=st.data())
    def answer(self, r: int, data: st.DataObject) -> None:
        me = self.replicas[r]
        if me.busy:
            item = data.draw(st.sampled_from(sorted(me.busy)))
            (me.results if me.busy.pop(item) else me.returned).add(item)

    @rule(
        r=replicas, claim=st.integers(0, 5), give_back=st.booleans(), fate=st.sampled_from(("heard", "unheard", "lost"))
    )
    def write(self, r: int, claim: int, give_back: bool, fate: str) -> None:
        me = self.replicas[r]
        if me.held is None:
            return
        if me.unsure is None:
            if give_back:
                me.returned |= set(me.queue)
                me.queue.clear()
            me.settles, me.returns = frozenset(me.results), frozenset(me.returned)
            me.results, me.returned = set(), set()
            me.unsure = states.advanced(me.held, Progress(settled=me.settles, returned=me.returns, claim=claim))
        self._swap(me, fate)

    def _swap(self, me: Replica, fate: str) -> None:
        """One try of a write: it takes and is heard of, or takes unheard, or is lost. A second try finds its own."""
        assert me.held is not None
        assert me.unsure is not None
        if fate == "lost":
            return
        if self.record == me.held:
            self.record = me.unsure
            self.kept |= me.settles
        if fate == "unheard":
            return
        if (
            self.record != me.unsure
        ):  # somebody else has it: nothing more is begun on purpose, but what is queued may be
            me.held = me.unsure = None
            return
        before = set(me.held.claimed) - me.returns
        me.held, me.unsure = self.record, None
        me.queue += sorted(set(me.held.claimed) - before)

    @rule(r=replicas)
    def die(self, r: int) -> None:
        self.replicas[r] = Replica(self.replicas[r].name)

    @rule(r=replicas)
    def give_back(self, r: int) -> None:
        me = self.replicas[r]
        if me.held is not None and me.unsure is None and self.record == me.held:
            self.record = states.released(me.held)
            self.replicas[r] = Replica(me.name)

    @precondition(lambda self: not any(replica.held for replica in self.replicas))
    @rule()
    def cancel(self) -> None:
        if self.record.number % 7 == 6:  # seldom, as not much happens after it
            self.record = states.deleted(self.record)

    @invariant()
    def no_item_is_sent_twice(self) -> None:
        assert all(count == 1 for count in self.runs.values() if count)

    @invariant()
    def each_item_is_in_one_place(self) -> None:
        record = self.record
        places = [*record.free, *record.claimed, *record.lost, *range(record.next, record.total)]
        settled = [item for item in range(record.total) if states.settled(record, item)]
        assert sorted(places + settled) == list(range(record.total))
        assert set(settled) == self.kept
        assert record.completed == len(settled) + len(record.lost)

    def teardown(self) -> None:
        """Whatever has happened, one replica that is left brings the batch to its end."""
        if not hasattr(self, "record") or self.record.deleted:
            return
        self.replicas = [Replica("c"), Replica("d")]
        self.read(0)
        self.take(0)
        for _ in range(2 * self.record.total + 2):
            while self.replicas[0].queue:
                item = self.replicas[0].queue.pop()
                self.runs[item] += 1
                self.replicas[0].results.add(item)
            self.write(0, 3, False, "heard")
        assert states.done(self.record)
        self.no_item_is_sent_twice()
        self.each_item_is_in_one_place()


TestTwoReplicas = TwoReplicas.TestCase
TestTwoReplicas.settings = settings(
    max_examples=100, stateful_step_count=50, deadline=None, derandomize=SEED is None, database=None
)
