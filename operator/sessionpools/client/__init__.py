"""Session Pools from Python, and the command line `sessionpools`.

    from sessionpools.client import Client

The names below are the public ones; all else may change. `AsyncClient` is the same with `await`. Everything raised is a
SessionPoolsError; errors.py draws the tree. numpy, pandas and dill are imported only by those who use them.

    errors      the exceptions                        sources   what publishing sends
    wire        requests and answers as data          values    numpy, pandas and JSON
    tokens      what /login gives                     models    what is returned
    exchange    from a request to its answer          flows/    what the client can do, written once
    drive       carries flows out, with httpx         cli/      the command line

`run.py` and `published.py` are the command `sessionpools run`, which stands on the rest of Session Pools: they are the
only ones here that need more than the distribution session-pools-client.
"""

from sessionpools.client.aio import AsyncClient
from sessionpools.client.client import Client
from sessionpools.client.errors import (
    AnswerInvalid,
    AnswerTimeout,
    BadRequest,
    CallFailed,
    Conflict,
    ConnectionFailed,
    Forbidden,
    HttpException,
    InputInvalid,
    NotFound,
    NotLoggedIn,
    PoolStalled,
    ServerError,
    SessionPoolsError,
    TooManyRequests,
    TransportError,
    Unauthorized,
    Unavailable,
    WaitTimeout,
)
from sessionpools.client.flows.services import Publication
from sessionpools.client.models import (
    Batch,
    BatchItem,
    BatchStatus,
    CallResult,
    Component,
    Condition,
    Node,
    NodeUsage,
    Parameter,
    PodLog,
    PoolNode,
    PoolStatus,
    PoolUsage,
    Service,
    ServiceLogs,
    Wait,
)
from sessionpools.client.tokens import Identity, Store, Tokens

__all__ = [
    "AnswerInvalid",
    "AnswerTimeout",
    "AsyncClient",
    "BadRequest",
    "Batch",
    "BatchItem",
    "BatchStatus",
    "CallFailed",
    "CallResult",
    "Client",
    "Component",
    "Condition",
    "Conflict",
    "ConnectionFailed",
    "Forbidden",
    "HttpException",
    "Identity",
    "InputInvalid",
    "Node",
    "NodeUsage",
    "NotFound",
    "NotLoggedIn",
    "Parameter",
    "PodLog",
    "PoolNode",
    "PoolStalled",
    "PoolStatus",
    "PoolUsage",
    "Publication",
    "ServerError",
    "Service",
    "ServiceLogs",
    "SessionPoolsError",
    "Store",
    "Tokens",
    "TooManyRequests",
    "TransportError",
    "Unauthorized",
    "Unavailable",
    "Wait",
    "WaitTimeout",
]
