"""What a pool's status has to say, worked out once more: from the API server's objects as they are (plain JSON), by the
words of docs/concepts.md, and with nothing of what the controller makes its status of (core.observe, core.placement,
core.target, core.status). Where the two do not agree, one of them is wrong.

    unlike_what_there_is(store, pool, "session:1")       # a line for each difference; none: all is as it says

Left to others are words: messages, and why a pool is Stalled (tests/unit/core/test_status*.py).
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from sessionpools.api import names
from sessionpools.api.v1alpha1 import SessionPool, WebService
from sessionpools.core.revision import CodeFiles, resolve
from sessionpools.kube.protocol import CONFIG_MAPS, NODES, PODS, SESSION_POOLS, WEB_SERVICES
from support.apiserver_objects import Json
from support.apiserver_store import Store


def unlike_what_there_is(store: Store, pool: Json, default_image: str) -> list[str]:
    expected = _Seen(store, pool, default_image).status()
    status = pool.get("status") or {}
    said = {field: status.get(field) for field in expected} | {
        "nodes": [{field: row[field] for field in ("name", "state", "desired", "ready")} for row in status["nodes"]]
        if "nodes" in status
        else None,
        **{each["type"]: each["status"] for each in status.get("conditions", [])},
    }
    name = pool["metadata"]["name"]
    return [f"{name}: {field} is {said.get(field)}, and not {expected[field]}" for field in expected
            if said.get(field) != expected[field]]  # fmt: skip


class _Seen:
    def __init__(self, store: Store, pool: Json, default_image: str) -> None:
        self.pool, self.spec = pool, pool["spec"]
        self.nodes = {node["metadata"]["name"]: node for node in store.all(NODES)}
        uid, namespace = pool["metadata"]["uid"], pool["metadata"]["namespace"]
        own = [pod for pod in store.all(PODS, namespace) if _controller_uid(pod) == uid]
        self.pods: dict[str, list[Json]] = {}
        for pod in own:
            self.pods.setdefault(pod["metadata"]["annotations"][names.ANNOTATION_NODE], []).append(pod)
        self.service = _served(pool, store.all(SESSION_POOLS, namespace), store.all(WEB_SERVICES, namespace))
        self.code = _code(store, self.service) if self.service else None
        self.revision = self._revision(own, default_image)
        self.leaves = "deletionTimestamp" in pool["metadata"] or self.service is None

    def status(self) -> Json:
        there = {name for name, node in self.nodes.items() if self.is_compute_node(node)} | self.pods.keys()
        rows = sorted((self.row(name) for name in there), key=lambda row: (row["state"] == "Success", row["name"]))
        states = Counter(row["state"] for row in rows)
        updated = sum(self.sessions(pod) for name in there for pod in self.serving(name) if self.is_current(pod))
        ready = sum(row["ready"] for row in rows)
        if states["Success"] == len(rows) > 0:
            state = "Success"
        else:
            state = "NotFound" if states["NotFound"] == len(rows) else "Pending"
        return {
            "observedGeneration": self.pool["metadata"]["generation"],
            "state": state,
            "nodes": rows[:500],
            "nodeCounts": {"total": len(rows), "success": states["Success"], "pending": states["Pending"],
                           "notFound": states["NotFound"]},
            "sessions": {"desired": sum(row["desired"] for row in rows), "ready": ready, "updated": updated,
                         "old": ready - updated},
            "Ready": str(self.is_ready(rows)),
            **({"Reconciling": "False"} if self.is_ready(rows) and not self.has_old() else {}),
        }  # fmt: skip

    def row(self, name: str) -> Json:
        wanted = self.is_wanted_on(name)
        desired = self.spec["initialPoolSize"] if wanted else 0
        ready = sum(self.sessions(pod) for pod in self.serving(name))
        if wanted:
            enough = ready >= desired
        else:
            enough = ready > 0 and not self.leaves and name in self.nodes and self.may_stay(self.nodes[name])
        most = self.spec["initialPoolSize" if self.spec.get("isolation", "Pod") == "Pod" else "maxPoolSize"]
        awaited = wanted and most > 0 and self.is_open(self.nodes[name]) and self.code is not None
        exist = any(not _ended(pod) for pod in self.pods.get(name, []))
        state = "Success" if enough else "Pending" if exist or awaited else "NotFound"
        return {"name": name, "state": state, "desired": desired, "ready": ready}

    def is_ready(self, rows: Iterable[Json]) -> bool:
        """Every compute node that is Ready and schedulable is Success, and there is one."""
        counted = [
            row["state"] == "Success"
            for row in rows
            if (node := self.nodes.get(row["name"]))
            and self.is_compute_node(node)
            and _is_true(node, "Ready")
            and not node["spec"].get("unschedulable")
        ]
        return all(counted) and bool(counted) and self.code is not None

    def has_old(self) -> bool:
        """A session pod of another revision stays."""
        return any(
            not self.is_current(pod) and not _ended(pod) and "deletionTimestamp" not in pod["metadata"]
            for pods in self.pods.values()
            for pod in pods
        )

    # --- sessions -----------------------------------------------------------------------------------------------------

    def serving(self, node: str) -> list[Json]:
        """Nobody can tell of a node that is lost or gone."""
        if node not in self.nodes or not _is_true(self.nodes[node], "Ready"):
            return []
        return [
            pod
            for pod in self.pods.get(node, [])
            if _is_true(pod, "Ready") and not _ended(pod) and "deletionTimestamp" not in pod["metadata"]
        ]

    def sessions(self, pod: Json) -> int:
        """Ready ones of a ready pod, as far as the pool wants them: a Process pod's are as many as it was told."""
        annotations = pod["metadata"]["annotations"]
        if annotations[names.ANNOTATION_ISOLATION] == "Pod":
            return 1
        told: int = json.loads(annotations[names.ANNOTATION_SETTINGS])["initialPoolSize"]
        return min(told, int(self.spec["initialPoolSize"]))

    def is_current(self, pod: Json) -> bool:
        return bool(pod["metadata"]["labels"][names.LABEL_REVISION] == self.revision)

    def _revision(self, pods: Sequence[Json], default_image: str) -> str:
        """Its own hash, which tests/unit/core/test_revision.py judges; while none can be told, what it was."""
        pool = SessionPool.model_validate(self.pool)
        if self.service is None or self.code is None:
            return pool.status.revision
        service = WebService.model_validate(self.service)
        images = {
            pod["metadata"]["labels"][names.LABEL_REVISION]: pod["spec"]["containers"][0]["image"]
            for pod in pods
            if not _ended(pod) and "deletionTimestamp" not in pod["metadata"]
        }
        return resolve(pool, service, self.code, default_image, images).name

    # --- nodes --------------------------------------------------------------------------------------------------------

    def is_wanted_on(self, name: str) -> bool:
        return not self.leaves and name in self.nodes and self.is_compute_node(self.nodes[name])

    def is_compute_node(self, node: Json) -> bool:
        """It has the labels, and no taint keeps sessions off but those that Kubernetes sets as the node's condition
        changes. A session that would be evicted after a while does not belong there."""
        return self._is_selected(node) and not any(
            self._tolerated_seconds(taint) is not None if self._tolerates(taint) else not _of_its_condition(taint)
            for taint in _barring(node)
        )

    def may_stay(self, node: Json) -> bool:
        """Though none would be added: what keeps sessions off does not end those that are there."""
        return self._is_selected(node) and all(
            taint["effect"] == "NoSchedule" or self._tolerates(taint) or _of_its_condition(taint)
            for taint in _barring(node)
        )

    def is_open(self, node: Json) -> bool:
        """New sessions can be had there now."""
        cordoned = node["spec"].get("unschedulable")
        return _is_true(node, "Ready") and not cordoned and all(self._tolerates(taint) for taint in _barring(node))

    def _is_selected(self, node: Json) -> bool:
        wanted = self._placement("nodeSelector", {})
        return bool(wanted.items() <= (node["metadata"].get("labels") or {}).items())

    def _tolerates(self, taint: Json) -> bool:
        return any(self._matching(taint))

    def _tolerated_seconds(self, taint: Json) -> int | None:
        """For how long; None: for ever."""
        if taint["effect"] != "NoExecute":
            return None
        matching = self._matching(taint)
        seconds = [int(each["tolerationSeconds"]) for each in matching if each.get("tolerationSeconds") is not None]
        return max(seconds) if len(seconds) == len(matching) else None

    def _matching(self, taint: Json) -> list[Json]:
        """As the API reference has it of tolerations."""
        return [
            each
            for each in self._placement("tolerations", [])
            if each.get("effect") in (None, "", taint["effect"])
            and each.get("key") in (None, "", taint["key"])
            and (each.get("operator") == "Exists" or each.get("value", "") == taint.get("value", ""))
        ]

    def _placement(self, field: str, otherwise: Any) -> Any:
        return (self.spec.get("placement") or {}).get(field) or otherwise


def _served(pool: Json, pools: Iterable[Json], services: Iterable[Json]) -> Json | None:
    """The web service whose sessions the pool holds: of objects with one key the oldest counts."""
    key = (pool["spec"].get("serviceName"), pool["spec"].get("serviceVersion"))
    if not key[0]:
        return None
    rivals = [each for each in pools if (each["spec"].get("serviceName"), each["spec"].get("serviceVersion")) == key]
    rivals = [each for each in rivals if "deletionTimestamp" not in each["metadata"] or each is pool]
    if min(rivals, key=_age)["metadata"]["uid"] != pool["metadata"]["uid"]:
        return None
    found = [each for each in services if (each["spec"]["name"], each["spec"]["version"]) == key]
    first = min(found, key=_age, default=None)
    return None if first is None or "deletionTimestamp" in first["metadata"] else first


def _code(store: Store, service: Json) -> CodeFiles | None:
    """None: no session can be made of it."""
    source, script = service["spec"]["code"], service["spec"].get("script")
    if "imagePath" in source or "bundle" in source:  # what is in them shows in the sessions only
        return CodeFiles()
    files = source.get("inline")
    if "configMap" in source:
        name, namespace = source["configMap"]["name"], service["metadata"]["namespace"]
        found = [each for each in store.all(CONFIG_MAPS, namespace) if each["metadata"]["name"] == name]
        files = found[0].get("data") if found else None
    if not files or (script and script not in files):
        return None
    return CodeFiles(tuple(sorted((path, text.encode()) for path, text in files.items())))


def _age(thing: Json) -> tuple[str, str]:
    return thing["metadata"]["creationTimestamp"], thing["metadata"]["uid"]


def _controller_uid(thing: Json) -> str:
    owners = thing["metadata"].get("ownerReferences") or []
    return next((str(owner["uid"]) for owner in owners if owner.get("controller")), "")


def _ended(pod: Json) -> bool:
    return pod["status"].get("phase") in ("Failed", "Succeeded")


def _is_true(thing: Json, condition: str) -> bool:
    conditions = (thing.get("status") or {}).get("conditions") or []
    return any(each["type"] == condition and each["status"] == "True" for each in conditions)


def _barring(node: Json) -> list[Json]:
    return [taint for taint in node["spec"].get("taints") or [] if taint["effect"] in ("NoSchedule", "NoExecute")]


def _of_its_condition(taint: Json) -> bool:
    return str(taint["key"]).startswith("node.kubernetes.io/")
