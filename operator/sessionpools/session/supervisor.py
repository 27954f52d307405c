"""PID 1 of a session pod: starts the template, keeps the slots filled, and says how the pod is.

Runs no user code: what it learns of the service comes by message from processes that do. It must not block and must not
die: a failure that it cannot heal goes into the termination log, and the kubelet starts the container again.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from sessionpools.session import control, linux, state, termination
from sessionpools.session.channel import BadMessageError, Channel, ChannelClosedError, Message
from sessionpools.session.config import Launch, Paths, RevisionSpec, Settings
from sessionpools.session.keeper import SlotKeeper, listen
from sessionpools.session.launcher import Child, spawn
from sessionpools.session.live import LiveSettings
from sessionpools.session.log import Log
from sessionpools.session.loop import Loop
from sessionpools.session.observe import Observer
from sessionpools.session.slots import CALLER_GONE, STARTS_BEFORE_FAILURE, Session, Slot, back_off_seconds
from sessionpools.session.spare import Spares
from sessionpools.session.warmup import WarmUps

_TICK_SECONDS = 1.0
_TEMPLATE_FAILURES = 3  # in a row, after Ready; with no session left the pod then fails
_END_SECONDS = 2.0  # what killed processes get to be reaped in


class Supervisor:
    def __init__(self, paths: Paths, spec: RevisionSpec, log: Log) -> None:
        self.paths = paths
        self.spec = spec
        self.log = log
        self.loop = Loop()
        self.shared = state.SharedState.create()
        self.keeper = SlotKeeper(self.loop, log, paths, self.shared, self)
        self.live = LiveSettings(paths.settings_file, self.keeper, log, self.loop.now)
        self.stack_fd = os.memfd_create("session-pools-stack", os.MFD_CLOEXEC)
        self.started_at = self.loop.now()
        self.template: Child | None = None
        self.template_failures = 0
        self.template_restarts = 0
        self.each_for_itself = not spec.fork_safe  # every session is a process that loads for itself
        self.threads: list[str] = []  # what made a fork-safe service not so
        self.signature: Any = None
        self.ready = False  # latched
        self.draining = False
        self.message = ""
        self.phase = "starting"
        self.phase_at = self.started_at
        self.warm_ups = WarmUps(self.loop, paths.host, spec.warmup)
        self.cpus = linux.cpu_count()
        self.observer = Observer(self)
        self.spares = Spares(self.loop, log, self.keeper, linux.MemoryCgroup(), self)

    # --- life -------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        linux.become_subreaper()
        linux.name_process("supervisor")
        self.loop.on_signal(signal.SIGCHLD, self._reap)
        self.loop.on_signal(signal.SIGTERM, self._drain)
        self.loop.on_signal(signal.SIGINT, self._interrupt)
        control.ControlServer(self.loop, listen(self.paths.host, self.paths.control_port, 64), self.observer.answer)
        self.live.begin()
        self.log("starting", service=self.spec.name, version=self.spec.version, settings=self.keeper.settings.as_json())
        self.keeper.act()
        if not self.each_for_itself or not self.keeper.settings.initial_pool_size:
            self._start_template()  # without a session to show it, a template tells whether the service loads
        self.loop.every(_TICK_SECONDS, self._tick)
        return self.loop.run()

    def _tick(self) -> None:
        self.message = self.live.take_over() or self.message
        self._check_start()
        self.keeper.tick()
        self.observer.tick()
        self.spares.tick()
        self._consider_ready()

    def settings(self) -> Settings:
        """What gateways may count on."""
        return self.live.announced()

    def _set_phase(self, phase: str) -> None:
        if phase != self.phase:
            self.phase, self.phase_at = phase, self.loop.now()
            self.log("phase", phase=phase)

    def fail(self, summary: str, details: str = "") -> None:
        """End the pod: it cannot do what it is for. What fails in its wake is not the reason."""
        if self.phase == "failed":
            return
        self.message = summary
        self._set_phase("failed")
        self.log("failed", level="error", message=summary)
        termination.write(self.paths.termination_log, summary, details)
        self._end(1)

    def _drain(self) -> None:
        if self.draining:
            return
        self.draining = self.keeper.draining = True
        self.spares.drop()
        self._set_phase("draining")
        self.loop.call_later(self.keeper.settings.drain_timeout_seconds, self._drain_timeout)
        self.keeper.act()
        self._consider_drained()

    def _interrupt(self) -> None:
        """Ctrl-C: drain; once more: end."""
        if self.draining:
            self._end(0)
        else:
            self._drain()

    def _drain_timeout(self) -> None:
        for session in self.keeper.sessions():
            self.log("drain-timeout", level="warning", slot=session.slot, pid=session.pid)
        self._end(0)

    def _consider_drained(self) -> None:
        if self.draining and not any(self.keeper.sessions()):
            self.log("drained")
            self._end(0)

    def _end(self, code: int) -> None:
        linux.end_groups(self._leaders(), _END_SECONDS)
        self.loop.stop(code)

    # --- the template -----------------------------------------------------------------------------------------------

    def _start_template(self) -> None:
        if self.draining or self.template is not None:
            return
        ours, theirs = Channel.pair()
        process = spawn(self._launch(theirs))
        theirs.close()
        now = self.loop.now()
        child = self.template = Child(process, ours, started_at=now, phase_at=now)
        self.loop.readable(ours.fileno(), lambda: self._hear_template(child))

    def _launch(
        self, channel: Channel, slot: int = -1, listener_fd: int = -1, connections: tuple[int, ...] = ()
    ) -> Launch:
        return Launch(
            paths=self.paths,
            channel_fd=channel.fileno(),
            state_fd=self.shared.fd,
            stack_fd=self.stack_fd,
            slot=slot,
            listener_fd=listener_fd,
            connection_fds=connections,
            max_slots=self.keeper.settings.max_pool_size,
            start_by=(self.loop.now() if self.ready else self.started_at) + self.keeper.settings.start_timeout_seconds,
        )

    def _hear_template(self, child: Child) -> None:
        while True:
            try:
                received = child.channel.receive()
            except ChannelClosedError:
                self.loop.forget(child.channel.fileno())
                return
            except BadMessageError:
                linux.kill_group(child.pid)
                continue
            if received is None:
                return
            message = received[0]
            if "phase" in message:
                child.phase = message["phase"]
                if not self.ready:
                    self._set_phase(child.phase)
            elif "loaded" in message:
                self._template_loaded(child, message)
            elif "failed" in message:
                child.failure = (message["failed"]["summary"], message["failed"]["details"])
            elif "forked" in message:
                self.keeper.forked(message["forked"], message["pid"])
            elif "unforked" in message:
                self.keeper.not_forked(message["unforked"], message["why"])
            elif "exited" in message:
                self._exited(message["exited"], message["status"])

    def _template_loaded(self, child: Child, message: Message) -> None:
        child.loaded = True
        self.template_failures = 0
        self.message = ""
        self.signature = message["signature"]
        self.threads = message["threads"]
        seconds = round(self.loop.now() - child.started_at, 3)
        self.log("template-loaded", pid=child.pid, seconds=seconds, threads=self.threads)
        if self.threads:
            self.log("not-fork-safe", level="warning", threads=self.threads)
            self.each_for_itself = True
        if not self.ready:
            self._set_phase("sessions")
        self.keeper.act()
        self._consider_ready()

    def _template_ended(self, child: Child, status: int) -> None:
        self._hear_template(child)  # its last words
        self.loop.forget(child.channel.fileno())
        child.channel.close()
        child.process.returncode = os.waitstatus_to_exitcode(status)
        self.template = None
        self.spares.drop()  # the next template makes its own
        if self.each_for_itself and child.loaded:
            return  # it has shown that the service loads, and its threads; it is not needed
        summary, details = child.failure or (self._template_death(child, status), "")
        self.log("template-ended", level="warning", pid=child.pid, reason=summary)
        if self.draining:
            return
        if not self.ready:
            self.fail(summary, details)
            return
        self.keeper.find_lost()
        self.template_restarts += 1
        if child.loaded:
            self._start_template()
            return
        self.template_failures += 1
        self.message = summary
        if self.template_failures >= _TEMPLATE_FAILURES and not any(s.serving for s in self.keeper.sessions()):
            self.fail(summary, details)
            return
        self.loop.call_later(back_off_seconds(self.template_failures), self._start_template)

    def _template_death(self, child: Child, status: int) -> str:
        where = "the template" if child.loaded else child.phase
        if self.keeper.killed_for_memory(status):
            return termination.out_of_memory(where, linux.MemoryCgroup().limit_bytes())
        return f"ProcessEnded: {linux.describe_status(status)} in {where}"

    # --- what the keeper asks ---------------------------------------------------------------------------------------

    def can_start(self) -> bool:
        if self.phase == "failed":
            return False
        if self.each_for_itself:
            # Interpreters that start together on few processors all start late.
            return sum(not session.serving for session in self.keeper.sessions()) < self.cpus
        return self.template is not None and self.template.loaded

    def start(self, session: Session, fds: list[int]) -> None:
        if self.each_for_itself:
            channel = Channel.from_fd(os.dup(fds[0]))
            session.own_process = True
            try:
                process = spawn(self._launch(channel, session.slot, fds[1], tuple(fds[2:])))
            finally:
                channel.close()
            session.pid = process.pid
            process.returncode = 0  # reaped by us, not by Popen
            return
        session.pid = self.spares.serve(session.slot, fds)
        session.was_spare = bool(session.pid)
        if not session.was_spare:
            self.fork(session.slot, self.keeper.settings.max_pool_size, fds)

    def can_fork(self) -> bool:
        return self.ready and not self.draining and not self.each_for_itself and self.can_start()

    def fork(self, slot: int, slots: int, fds: list[int]) -> None:
        if self.template is None:
            raise ChannelClosedError
        self.template.channel.send({"fork": slot, "max": slots}, fds)

    def session_said(self, session: Session, message: Message) -> None:
        if "loaded" in message:
            self.signature = message["signature"]
        elif "phase" in message and not self.ready and self.each_for_itself and not self._serving():
            self._set_phase(session.phase)
        elif message.get("idle"):
            self.log("session-started", slot=session.slot, pid=session.pid, activated=session.activated)
            if not self.ready:
                self._set_phase("sessions")
                self._warm_up(session)
                self._consider_ready()
            if self.each_for_itself:
                self.keeper.act()  # another may start now
            self.spares.plan()

    def session_ended(self, slot: Slot, session: Session, reason: str) -> None:
        self.warm_ups.cancel(slot)
        if self.draining:
            self._consider_drained()
        elif not self.ready and not session.answered and slot.number < self.keeper.settings.initial_pool_size:
            if session.failure is not None:
                self.fail(*session.failure)
            elif reason == "OOMKilled":
                self.fail(termination.out_of_memory(session.phase, linux.MemoryCgroup().limit_bytes()))
            elif session.own_process and not session.serving:
                self.fail(f"ProcessEnded: {reason} in {session.phase}")
            elif slot.started >= STARTS_BEFORE_FAILURE and reason != CALLER_GONE:
                self.fail(f"SessionEnded: {reason} before it had answered the warm-up")

    def template_stuck(self) -> None:
        if self.template is not None:
            self.log("template-stuck", level="error", pid=self.template.pid)
            linux.kill_group(self.template.pid)

    # --- becoming ready ---------------------------------------------------------------------------------------------

    def _serving(self) -> bool:
        return any(session.serving for session in self.keeper.sessions())

    def _warm_up(self, session: Session) -> None:
        if self.spec.warmup is None or session.slot >= self.keeper.settings.initial_pool_size:
            session.answered = True
            return
        slot = self.keeper.slots[session.slot]

        def done(problem: str | None) -> None:
            if slot.session is not session:
                return
            if problem:
                first, _, rest = problem.partition("\n")
                self.fail(f"{first} (warmup)", rest)
            elif problem == "":
                session.answered = True
                self._consider_ready()
            # else it died, which is about to be told

        self.warm_ups.start(slot, done)

    def _consider_ready(self) -> None:
        if self.ready or self.draining or not (self.each_for_itself or (self.template and self.template.loaded)):
            return
        for number in range(self.keeper.settings.initial_pool_size):
            slot = self.keeper.slots.get(number)
            if slot is None or slot.session is None or not slot.session.answered:
                return
        if self.each_for_itself and self.signature is None:
            return
        self.ready = True
        self._set_phase("ready")
        self.log("ready", seconds=round(self.loop.now() - self.started_at, 3))
        self.spares.plan()

    def _check_start(self) -> None:
        limit = self.keeper.settings.start_timeout_seconds
        now = self.loop.now()
        template = self.template
        if self.ready:
            if template is not None and not template.loaded and now - template.started_at > limit:
                template.failure = (f"StartTimeout: {template.phase} took longer than {limit:g} s", "")
                linux.kill_group(template.pid)
            return
        if self.draining or now - self.started_at <= limit:
            return
        phase, pid = self.phase, 0
        if template is not None and not template.loaded:
            pid = template.pid
        else:
            for session in self.keeper.sessions():
                if not session.answered and session.pid:
                    phase, pid = ("warmup" if session.serving else session.phase), session.pid
                    break
        stack = termination.stack_of(pid, self.stack_fd) if pid else ""
        self.fail(f"StartTimeout: {phase} took longer than {limit:g} s", stack)

    def is_ready(self) -> bool:
        """Latched, and with what it takes to replace a session."""
        return self.ready and not self.draining and (self.each_for_itself or self.template is not None)

    # --- processes --------------------------------------------------------------------------------------------------

    def _reap(self) -> None:
        for pid, status in linux.dead_children(self._leaders()):
            if self.template is not None and pid == self.template.pid:
                self._template_ended(self.template, status)
            else:
                self._exited(pid, status)

    def _exited(self, pid: int, status: int) -> None:
        if not self.spares.exited(pid, status):
            self.keeper.exited(pid, status)  # unknown ones were orphans of user code

    def _leaders(self) -> set[int]:
        """Of the process groups that are there."""
        template = self.template.pid if self.template is not None else 0
        return {*self.keeper.pids(), *self.spares.pids, template} - {0}
