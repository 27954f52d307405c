"""The kinds SessionPool and WebService, version v1alpha1: one description for code, CRDs and reference pages.

The CRDs in crds/ and the pages in docs/reference are generated from these models (`sessionpools.api.crds`): a field's
docstring is what `kubectl explain` prints. Reading an object that the API server accepted never fails: unknown fields
are ignored and only types are checked. Zero values ("", [], {}, None) mean "not given" and are no defaults in the CRDs.
No I/O here and no decisions; controller, gateway, web API and client all read and write objects through these models.
"""

from sessionpools.api.v1alpha1.meta import (
    MAX_CONDITION_MESSAGE,
    NOT_OBSERVED,
    Condition,
    JsonObject,
    Model,
    ObjectMeta,
    Time,
)
from sessionpools.api.v1alpha1.sessionpool import (
    MAX_NODE_MESSAGE,
    MAX_STATUS_NODES,
    Isolation,
    NodeCounts,
    NodeStatus,
    Placement,
    Queue,
    SessionCounts,
    SessionPool,
    SessionPoolSpec,
    SessionPoolStatus,
    State,
    Toleration,
    Update,
)
from sessionpools.api.v1alpha1.webservice import (
    Bundle,
    Code,
    LocalObjectReference,
    Parameter,
    ParameterType,
    PoolKind,
    SignatureParameter,
    WebService,
    WebServiceSpec,
    WebServiceStatus,
)

__all__ = [
    "MAX_CONDITION_MESSAGE",
    "MAX_NODE_MESSAGE",
    "MAX_STATUS_NODES",
    "NOT_OBSERVED",
    "Bundle",
    "Code",
    "Condition",
    "Isolation",
    "JsonObject",
    "LocalObjectReference",
    "Model",
    "NodeCounts",
    "NodeStatus",
    "ObjectMeta",
    "Parameter",
    "ParameterType",
    "Placement",
    "PoolKind",
    "Queue",
    "SessionCounts",
    "SessionPool",
    "SessionPoolSpec",
    "SessionPoolStatus",
    "SignatureParameter",
    "State",
    "Time",
    "Toleration",
    "Update",
    "WebService",
    "WebServiceSpec",
    "WebServiceStatus",
]
