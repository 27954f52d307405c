"""Tokens, repetitions and timeouts, over real connections."""

import asyncio
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sessionpools.client import (
    AnswerTimeout,
    AsyncClient,
    Client,
    Conflict,
    ConnectionFailed,
    Forbidden,
    HttpException,
    InputInvalid,
    NotFound,
    NotLoggedIn,
    ServerError,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from sessionpools.client.exchange import Clock, Login, Send, Sleep, attempts
from sessionpools.client.tokens import InMemory, Tokens, identity_of
from sessionpools.client.wire import Repeat, Request, Response
from support.both_clients import Both
from support.restapi import Reply, RestApi


async def published(client: Both) -> None:
    await client.services.publish(
        "Score", "v1", "answer = x\n", script=True, inputs={"x": float}, outputs={"answer": float}
    )


class TestTokens:
    async def test_the_first_request_logs_in_and_the_others_use_its_token(self, client: Both, api: RestApi) -> None:
        await client.services.list()
        await client.services.list()
        assert len(api.asked("POST /login")) == 1
        assert {each.token for each in api.asked("GET /services")} <= api.tokens

    async def test_a_token_is_renewed_before_it_expires(self, client: Both, api: RestApi) -> None:
        api.life_seconds = 0.4
        await client.services.list()
        await asyncio.sleep(0.35)
        await client.services.list()
        assert len(api.asked("POST /login/refreshToken")) == 1
        assert len({each.token for each in api.asked("GET /services")}) == 2
        assert len(api.asked("POST /login")) == 1

    async def test_a_refused_token_is_renewed_once_and_the_request_sent_again(self, client: Both, api: RestApi) -> None:
        await client.services.list()
        api.tokens.clear()
        assert await client.services.list() == []
        assert len(api.asked("POST /login/refreshToken")) == 1

    async def test_a_refresh_token_that_is_used_up_is_replaced_by_the_password(
        self, client: Both, api: RestApi
    ) -> None:
        await client.services.list()
        api.tokens.clear()
        api.refresh_tokens.clear()
        assert await client.services.list() == []
        assert len(api.asked("POST /login")) == 2

    async def test_a_token_that_is_refused_twice_is_an_error(self, client: Both, api: RestApi) -> None:
        api.fail("GET /services", Reply(401, {"message": "no"}), Reply(401, {"message": "really not"}))
        with pytest.raises(Unauthorized, match="GET /services: 401 Unauthorized: really not"):
            await client.services.list()

    async def test_a_wrong_password_is_said_and_not_tried_again(self, api: RestApi) -> None:
        with Client(api.url, user="admin", password="wrong") as client, pytest.raises(Unauthorized, match="password"):
            client.services.list()
        assert len(api.seen) == 1

    async def test_too_many_logins_are_told_with_the_seconds_and_not_repeated(self, api: RestApi) -> None:
        api.fail("POST /login", Reply(429, {"message": "slowly"}, {"Retry-After": "7"}))
        with Client(api.url, user="admin", password="secret") as client, pytest.raises(TooManyRequests) as error:
            client.services.list()
        assert (error.value.retry_after, len(api.seen)) == (7.0, 1)

    async def test_a_given_token_is_used_as_it_is(self, api: RestApi) -> None:
        token = api.new_tokens()["access_token"]
        async with AsyncClient(api.url, token=token) as client:
            assert await client.services.list() == []
            assert (await client.whoami()).user == "admin"
        assert not api.asked("POST /login")

    async def test_without_credentials_nothing_is_sent_as_such(self, api: RestApi) -> None:
        with Client(api.url) as client, pytest.raises(Unauthorized):
            client.services.list()
        assert "authorization" not in api.seen[0].headers

    async def test_threads_renew_a_token_once(self, api: RestApi) -> None:
        with Client(api.url, user="admin", password="secret") as client:
            client.services.list()
            api.tokens.clear()
            with ThreadPoolExecutor(8) as threads:
                assert list(threads.map(lambda _: client.services.list(), range(8))) == [[]] * 8
        assert len(api.asked("POST /login/refreshToken")) == 1

    async def test_tasks_renew_a_token_once(self, api: RestApi) -> None:
        async with AsyncClient(api.url, user="admin", password="secret") as client:
            await client.services.list()
            api.tokens.clear()
            await asyncio.gather(*(client.services.list() for _ in range(8)))
        assert len(api.asked("POST /login/refreshToken")) == 1

    async def test_logging_out_revokes_the_refresh_token(self, client: Both, api: RestApi) -> None:
        await client.login()
        await client.logout()
        assert not api.refresh_tokens

    def test_an_expired_token_that_nothing_can_renew_is_said(self) -> None:
        flow = Login(InMemory(Tokens("t", expires_at=5.0)), Clock(lambda: 10.0, lambda: 0, lambda: 0)).bearer()
        next(flow)  # nobody else is to renew it meanwhile
        with pytest.raises(NotLoggedIn, match="log in again"):
            flow.send(None)

    def test_what_is_no_token_says_nothing_of_its_bearer(self) -> None:
        assert identity_of("opaque") is None
        assert identity_of("a.b.c") is None


class TestRepetitions:
    async def test_a_listing_survives_a_broken_connection_a_502_and_a_503(self, client: Both, api: RestApi) -> None:
        await client.login()
        api.fail("GET /services", Reply(close=True), Reply(502), Reply(503))
        assert await client.services.list() == []

    async def test_what_stays_unavailable_is_told_after_four_attempts(self, client: Both, api: RestApi) -> None:
        await client.login()
        api.fail("GET /services", *[Reply(503, {"message": "the store is away"})] * 9)
        with pytest.raises(Unavailable, match="GET /services: 503 Service Unavailable: the store is away"):
            await client.services.list()
        assert len(api.asked("GET /services")) == 4

    async def test_a_deletion_that_a_broken_connection_hid_is_done(self, client: Both, api: RestApi) -> None:
        await published(client)
        api.fail("DELETE /services/Score/v1", Reply(close=True))
        del api.services[("Score", "v1")]  # the first attempt did it, and its answer was lost
        await client.services.delete("Score", "v1")

    async def test_a_deletion_of_what_there_is_not_is_an_error(self, client: Both) -> None:
        with pytest.raises(NotFound, match=r"case matters|no service"):
            await client.services.delete("Score", "v1")

    async def test_a_call_that_a_session_may_have_begun_is_not_sent_again(self, client: Both, api: RestApi) -> None:
        await published(client)
        api.fail("POST /api/Score/v1", Reply(close=True))
        with pytest.raises(AnswerTimeout, match="may have been done"):
            await client.call("Score", "v1", x=1)
        assert len(api.asked("POST /api/.*")) == 1
        api.fail("POST /api/Score/v1", Reply(502, {"success": False, "errorMessage": "the session died"}))
        with pytest.raises(ServerError, match="502 Bad Gateway: the session died"):
            await client.call("Score", "v1", x=1)
        assert len(api.asked("POST /api/.*")) == 2

    @pytest.mark.parametrize("status", [429, 503])
    async def test_a_call_comes_back_when_the_gateway_says(self, client: Both, api: RestApi, status: int) -> None:
        await published(client)
        api.fail("POST /api/Score/v1", Reply(status, headers={"Retry-After": "0"}))
        assert (await client.call("Score", "v1", x=1)).output() == 1

    @pytest.mark.parametrize("status", [429, 502, 503, 504])
    async def test_what_may_be_done_already_is_not_done_again(self, client: Both, api: RestApi, status: int) -> None:
        await published(client)
        api.fail("POST /services/Score/v2", Reply(status, headers={"Retry-After": "0"}))
        with pytest.raises(HttpException):
            await client.services.publish("Score", "v2", "answer = x\n", script=True)
        assert len(api.asked("POST /services/Score/v2")) == 1
        api.fail("POST /api/Score/v1/batch", Reply(status, headers={"Retry-After": "0"}))
        with pytest.raises(HttpException):
            await client.batches.start("Score", "v1", [{"x": 1}])
        assert len(api.asked("POST /api/Score/v1/batch")) == 1

    async def test_a_call_without_a_pool_does_not_wait_for_one(self, client: Both, api: RestApi) -> None:
        await published(client)
        api.fail("POST /api/Score/v1", Reply(503, {"success": False, "errorMessage": "it has no pool"}))
        with pytest.raises(Unavailable, match="it has no pool"):
            await client.call("Score", "v1", x=1)

    async def test_a_longer_wait_than_thirty_seconds_is_the_callers_to_decide(self, client: Both, api: RestApi) -> None:
        await published(client)
        api.fail("POST /api/Score/v1", Reply(429, headers={"Retry-After": "120"}))
        with pytest.raises(TooManyRequests) as error:
            await client.call("Score", "v1", x=1)
        assert error.value.retry_after == 120

    async def test_nobody_listening_is_said_with_the_address(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        with Client(f"http://127.0.0.1:{port}", token="t") as client, pytest.raises(ConnectionFailed) as error:
            client.call("Score", "v1")
        assert f"127.0.0.1:{port}" in str(error.value)

    async def test_an_answer_that_does_not_come_ends_at_its_timeout(self, client: Both, api: RestApi) -> None:
        await published(client)
        never = threading.Event()
        api.fail("POST /api/Score/v1", Reply(delay=never))
        began = time.monotonic()
        with pytest.raises(AnswerTimeout, match=r"0.2 s"):
            await client.call("Score", "v1", {"x": 1}, timeout=0.2)
        assert time.monotonic() - began < 5
        never.set()


class TestPolicy:
    """The flow alone: what it asks for, and when."""

    CLOCK = Clock(lambda: 0.0, lambda: 0.0, lambda: 0.5)

    def asked(self, repeat: Repeat, *answers: int | Exception, after: str = "") -> list[float]:
        """The pauses, until the flow ends."""
        request = Request("POST", "/x", repeat=repeat)
        flow = attempts(request, None, self.CLOCK)
        pauses = []
        effect = next(flow)
        for answer in answers:
            assert isinstance(effect, Send)
            headers = {"retry-after": after} if after else {}
            try:
                if isinstance(answer, Exception):
                    effect = flow.throw(answer)
                else:
                    effect = flow.send(Response(answer, "", headers, b"", request))
                assert isinstance(effect, Sleep)
                pauses.append(effect.seconds)
                effect = next(flow)
            except StopIteration:
                break
            except ConnectionFailed:
                break
        return pauses

    def test_pauses_double(self) -> None:
        failures = [ConnectionFailed("no")] * 4
        assert self.asked(Repeat.UNCONNECTED, *failures) == pytest.approx([0.15, 0.3, 0.6])

    @pytest.mark.parametrize("repeat", [Repeat.UNSEEN, Repeat.UNCONNECTED])
    def test_what_may_have_been_done_is_not_done_again(self, repeat: Repeat) -> None:
        assert self.asked(repeat, 502) == []
        assert self.asked(repeat, 503) == []

    def test_all_that_a_server_asks_for_is_bounded(self) -> None:
        assert self.asked(Repeat.UNSEEN, 429, 429, 429, after="10") == pytest.approx([12.5, 12.5])


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "kind"),
        [(403, Forbidden), (404, NotFound), (409, Conflict), (410, HttpException), (500, ServerError)],
    )
    async def test_an_answer_has_the_fields_of_the_old_client(
        self, client: Both, api: RestApi, status: int, kind: type[HttpException]
    ) -> None:
        await client.login()
        body = {"message": "somebody else's", "link": "/docs", "exceptionType": "NotOwner"}
        api.fail("DELETE /services/a/b", *[Reply(status, body, {"X-Request-Id": "r-1"})] * 4)
        with pytest.raises(kind) as error:
            await client.services.delete("a", "b")
        found = error.value
        assert (found.status, found.exception_type, found.request_id) == (status, "NotOwner", "r-1")
        assert "somebody else's" in found.body
        assert found.headers["x-request-id"] == "r-1"
        assert found.reason

    async def test_another_server_is_recognised(self, client: Both, api: RestApi) -> None:
        await client.login()
        api.fail("GET /services", Reply(raw=b"<html>", headers={"Content-Type": "text/html"}))
        with pytest.raises(Exception, match="text/html instead of JSON: is this the address of Session Pools"):
            await client.services.list()

    @pytest.mark.parametrize(
        ("url", "why"),
        [
            ("localhost:12800", "no address"),
            ("ftp://a", "no address"),
            ("http://", "no address"),
            ("http://u:p@a", "credentials"),
            ("http://a?b=c", "no \\?"),
        ],
    )
    def test_what_is_no_address_is_refused(self, url: str, why: str) -> None:
        with pytest.raises(InputInvalid, match=why):
            Client(url)

    def test_credentials_that_contradict_each_other_are_refused(self) -> None:
        with pytest.raises(InputInvalid, match="together"):
            Client("http://a", user="admin")
        with pytest.raises(InputInvalid, match="not both"):
            Client("http://a", user="admin", password="x", token="t")
        with pytest.raises(InputInvalid, match="token"):
            Client("http://a", token="t\r\nX: y")
