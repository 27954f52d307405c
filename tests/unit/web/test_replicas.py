"""Two replicas at once, and others with kubectl: one winner, no damage."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import httpx

from sessionpools.kube.protocol import SESSION_POOLS, WEB_SERVICES
from support.waiting import until
from support.web import NAMESPACE, SCRIPT, WebWorld, error_of


async def clients(world: WebWorld) -> tuple[httpx.AsyncClient, httpx.AsyncClient]:
    return world.client(), world.of(await world.replica())


async def test_of_many_who_publish_the_same_one_wins(world: WebWorld) -> None:
    one, other = await clients(world)
    answers = await asyncio.gather(
        *(
            client.post("/services/Score/v1", json=SCRIPT | {"description": f"{number}"})
            for number, client in enumerate([one, other] * 5)
        )
    )
    codes = Counter(answer.status_code for answer in answers)
    assert codes[201] == 1
    assert codes.keys() <= {201, 403, 409}
    (winner,) = [number for number, answer in enumerate(answers) if answer.status_code == 201]
    assert world.service()["spec"]["description"] == f"{winner}"
    for answer in answers:
        if answer.status_code != 201:
            assert "PATCH" in error_of(answer)


async def test_a_replica_that_has_not_seen_the_other_yet_says_409(world: WebWorld) -> None:
    one, other = await clients(world)
    world.server.pause_watches()
    publishing = asyncio.create_task(one.post("/services/Score/v1", json=SCRIPT))
    await until(lambda: world.services(), "it is written")
    answer = await other.post("/services/Score/v1", json=SCRIPT)
    assert answer.status_code == 409
    world.server.resume_watches()
    assert (await publishing).status_code == 201


async def test_one_that_kubectl_made_a_moment_earlier_stays_and_ours_goes(world: WebWorld) -> None:
    admin = world.client()
    world.server.pause_watches()
    body = {
        "metadata": {"name": "by-hand", "namespace": NAMESPACE},
        "spec": {"name": "Score", "version": "v1", "code": {"imagePath": "/app"}, "entrypoint": "a:b"},
    }
    world.server.store.create(WEB_SERVICES, body, NAMESPACE)
    # an object of the same second is told apart by its uid: this one is to be older
    world.server.store.edit(
        WEB_SERVICES, "by-hand", {"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}}, NAMESPACE
    )
    publishing = asyncio.create_task(admin.post("/services/Score/v1", json=SCRIPT))
    await until(lambda: len(world.services()) == 2, "ours is written")
    world.server.resume_watches()
    answer = await publishing
    assert answer.status_code == 409
    assert "'by-hand'" in error_of(answer)
    assert [service["metadata"]["name"] for service in world.services()] == ["by-hand"]


async def test_updates_at_once_all_take_effect(world: WebWorld) -> None:
    one, other = await clients(world)
    await one.post("/services/Score/v1", json=SCRIPT)
    changes = [{"description": "new"}, {"operationId": "plus"}, {"outputFileNames": ["a.png"]}, {"modules": ["math"]}]
    await until(lambda: world.replicas[1].parts.cluster.service("Score", "v1"), "the other knows it")
    answers = await asyncio.gather(
        *(client.patch("/services/Score/v1", json=body) for client, body in zip([one, other] * 2, changes, strict=True))
    )
    assert [answer.status_code for answer in answers] == [200] * 4
    spec = world.service()["spec"]
    assert (spec["description"], spec["outputFiles"], spec["modules"]) == ("new", ["a.png"], ["math"])
    assert world.service()["metadata"]["annotations"]["sessionpools.dev/operation-id"] == "plus"


async def test_of_two_who_change_the_code_at_once_none_undoes_half_of_the_other(world: WebWorld) -> None:
    one, other = await clients(world)
    await one.post("/services/Score/v1", json=SCRIPT)
    await until(lambda: world.replicas[1].parts.cluster.service("Score", "v1"), "the other knows it")
    answers = await asyncio.gather(
        one.patch("/services/Score/v1", json={"code": "answer = 2 * x"}),
        other.patch("/services/Score/v1", json={"initCode": "offset = 5"}),
    )
    (shown,) = (await one.get("/services/Score/v1")).json()
    done = [answer.status_code == 200 for answer in answers]
    assert any(done)
    assert (shown["code"] == "answer = 2 * x") is done[0]
    assert (shown["initCode"] == "offset = 5") is done[1]


async def test_of_many_who_make_the_pool_all_are_told_that_it_is_there(world: WebWorld) -> None:
    one, other = await clients(world)
    await one.post("/services/Score/v1", json=SCRIPT)
    await until(lambda: world.replicas[1].parts.cluster.service("Score", "v1"), "the other knows it")
    answers = await asyncio.gather(
        *(
            client.post("/services/Score/v1/pool", json={"InitialPoolSize": 1, "MaxPoolSize": number + 1})
            for number, client in enumerate([one, other] * 4)
        )
    )
    assert {answer.status_code for answer in answers} == {200}
    assert [answer.json() for answer in answers].count("Created.") == 1
    assert 1 <= world.pool()["spec"]["maxPoolSize"] <= 8


async def test_a_storm_of_publications_and_deletions_leaves_what_the_last_ones_said(world: WebWorld) -> None:
    one, other = await clients(world)
    rng = random.Random(6)
    names = [f"s{number}" for number in range(4)]

    async def caller(client: httpx.AsyncClient, seed: int) -> list[int]:
        rng = random.Random(seed)
        codes = []
        for _ in range(15):
            path = f"/services/{rng.choice(names)}/v1"
            match rng.randrange(4):
                case 0:
                    answer = await client.post(path, json=SCRIPT)
                case 1:
                    answer = await client.patch(path, json={"description": str(seed)})
                case 2:
                    answer = await client.post(f"{path}/pool", json={"MaxPoolSize": rng.randrange(1, 5)})
                case _:
                    answer = await client.delete(path)
            codes.append(answer.status_code)
            if answer.status_code >= 400:
                error_of(answer)
        return codes

    found = await asyncio.gather(*(caller(rng.choice([one, other]), seed) for seed in range(6)))
    codes = Counter(code for each in found for code in each)
    assert codes.keys() <= {200, 201, 403, 404, 409}, codes
    keys = [(service["spec"]["name"], service["spec"]["version"]) for service in world.services()]
    assert len(keys) == len(set(keys))
    there = {name for name, _ in keys}
    for replica in world.replicas:
        known = replica.parts.cluster
        await until(lambda: {each.spec.name for each in known.services()} == there, "the replica knows")  # noqa: B023
    for name in names:
        await one.delete(f"/services/{name}/v1")
        await one.delete(f"/services/{name}/v1/pool")
    assert world.services() == []
    assert world.pools() == []
    for name in names:  # and nothing is in the way of the next
        assert (await other.post(f"/services/{name}/v1", json=SCRIPT)).status_code in (201, 403)


async def test_an_answer_that_is_lost_is_told_as_such_and_the_next_look_shows_what_was_done(world: WebWorld) -> None:
    admin = world.client()
    world.server.fail("create", WEB_SERVICES, 0, after=True)
    answer = await admin.post("/services/Score/v1", json=SCRIPT)
    assert answer.status_code == 503
    await until(lambda: world.parts.cluster.service("Score", "v1"), "the API knows it")
    assert (await admin.post("/services/Score/v1", json=SCRIPT)).status_code == 403
    await admin.post("/services/Score/v1/pool", json={"MaxPoolSize": 1})
    world.server.fail("delete", SESSION_POOLS, 0, after=True)
    # HTTP's own repetition of a DELETE, or ours, finds that it is done
    assert (await admin.delete("/services/Score/v1/pool")).status_code in (200, 503)
    assert (await admin.delete("/services/Score/v1/pool")).status_code == 200
    assert world.pools() == []


async def test_an_update_whose_answer_was_lost_is_not_called_somebody_elses(world: WebWorld) -> None:
    admin = world.client()
    await admin.post("/services/Score/v1", json=SCRIPT)
    world.server.fail("update", WEB_SERVICES, 0, after=True)
    answer = await admin.patch("/services/Score/v1", json={"code": "answer = 3 * x"})
    assert answer.status_code in (200, 503)
    assert (await admin.patch("/services/Score/v1", json={"code": "answer = 3 * x"})).status_code == 200
    (shown,) = (await admin.get("/services/Score/v1")).json()
    assert shown["code"] == "answer = 3 * x"
