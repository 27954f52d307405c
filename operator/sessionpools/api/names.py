"""Names that are part of the contract between controller, session pods, gateway and users. Standard library only.

A label or annotation that is not here does not exist. Changing a value here is a breaking change: running pods carry
the old one.
"""

from typing import Final

GROUP: Final = "sessionpools.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

PRODUCT: Final = "session-pools"
FIELD_MANAGER: Final = "session-pools-controller"

# --- labels of session pods and of what belongs to a revision; selectors use only these ---------------------
LABEL_POOL: Final = f"{GROUP}/pool"  # the SessionPool's metadata.name (a DNS label, at most 63 characters)
LABEL_POOL_UID: Final = f"{GROUP}/pool-uid"
LABEL_REVISION: Final = f"{GROUP}/revision"
LABEL_SLOT: Final = f"{GROUP}/slot"  # isolation Pod: which of the node's sessions this pod is; Process: "0"
LABEL_INCARNATION: Final = f"{GROUP}/incarnation"
LABEL_SERVICE: Final = f"{GROUP}/webservice"  # on code ConfigMaps: the WebService's metadata.name

# --- the label of gateway pods: the Service of the gateway selects the one pod that carries it ----------------
LABEL_GATEWAY: Final = f"{GROUP}/gateway"
GATEWAY_ACTIVE: Final = "active"

# --- annotations --------------------------------------------------------------------------------------------
# Node names have up to 253 characters, which no label value has room for.
ANNOTATION_NODE: Final = f"{GROUP}/node"
ANNOTATION_NODE_UID: Final = f"{GROUP}/node-uid"
# The pod's own isolation: the pool's may have changed since. A pod without it has the pool's.
ANNOTATION_ISOLATION: Final = f"{GROUP}/isolation"
# JSON of what may change without a rollout (sizes, timeouts); session pods read it through a downwardAPI volume.
ANNOTATION_SETTINGS: Final = f"{GROUP}/settings"
# Set by a user on a SessionPool: a new value is a new revision, as `kubectl rollout restart` does it.
ANNOTATION_RESTARTED_AT: Final = f"{GROUP}/restartedAt"
# Set by an operator on the Secret of the signing keys: a time (RFC 3339). A key that signed before it is replaced.
ANNOTATION_ROTATE_AT: Final = f"{GROUP}/rotate-at"

# --- annotations of WebServices and SessionPools that the web API writes --------------------------------------
ANNOTATION_OWNER: Final = f"{GROUP}/owner"  # the user who published it
ANNOTATION_OPERATION_ID: Final = f"{GROUP}/operation-id"  # the name of the call in swagger.json and in clients
ANNOTATION_PUBLISHED_AT: Final = f"{GROUP}/published-at"  # in microseconds, to order versions of one second
ANNOTATION_SNAPSHOT: Final = f"{GROUP}/snapshot-id"  # the snapshot that it was published from
# Set by whoever manages an object from elsewhere (GitOps): the web API changes it only when forced.
ANNOTATION_MANAGED_BY: Final = f"{GROUP}/managed-by"
# Kubernetes' own label for the same; the web API's objects have its value.
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGED_BY_WEB: Final = "session-pools-web"

# --- inside a session pod -----------------------------------------------------------------------------------
CONTAINER: Final = "session"
SLOT_PORT: Final = 9000  # slot n listens on 9000 + n
CONTROL_PORT: Final = 8999
CONFIG_DIR: Final = "/etc/session-pools"
REVISION_DIR: Final = f"{CONFIG_DIR}/revision"  # the revision's ConfigMap: session.json
CODE_DIR: Final = f"{CONFIG_DIR}/code"  # inline and ConfigMap code
LIVE_DIR: Final = f"{CONFIG_DIR}/live"  # downwardAPI: the file `settings`
WORK_DIR: Final = "/tmp"  # noqa: S108  an emptyDir: the root file system is read-only
# What begins so is the product's own; the kinds refuse it in env, envFrom and volumes of a web service.
ENV_PREFIX: Final = "SESSIONPOOLS_"
VOLUME_PREFIX: Final = "session-pools"
ENV_POOL: Final = "SESSIONPOOLS_POOL"  # "<pool uid>/<revision>"; the header X-Session-Pool must name the uid
ENV_MEMORY: Final = "SESSIONPOOLS_SESSION_MEMORY"  # memory limit of one session in bytes; 0: none
ENV_CONFIG_DIR: Final = "SESSIONPOOLS_CONFIG_DIR"

# preStop: gateways stop sending to a pod that is being deleted within this time (seconds).
PRE_STOP_SECONDS: Final = 3
# After drainTimeoutSeconds sessions are killed; the supervisor then has this long to end (seconds).
DRAIN_MARGIN_SECONDS: Final = 5
