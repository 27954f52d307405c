"""Which of the controllers works: the holder of a Lease. The others know all that it knows, and wait.

The leader that stops releases the Lease, and another leads at its next look. One that was killed, or cut off from the
API server, is succeeded once its record was seen unchanged for `LEASE_SECONDS`; it has stopped by itself a third of
that before (`kube.lease`). That its pod was deleted is no proof that its process has ended, as of a pod that is deleted
by force, so nobody leads earlier for it.
"""

from typing import Final

from sessionpools.api import names
from sessionpools.controller.config import Config
from sessionpools.kube.lease import Election
from sessionpools.kube.protocol import KubeApi

__all__ = ["election"]

LEASE_SECONDS: Final = 10.0  # a crash is noticed within this time and LOOK_SECONDS
RENEW_SECONDS: Final = 2.0  # three may fail before the leader stops
LOOK_SECONDS: Final = 1.0  # how often who does not hold the Lease reads it: a release is noticed within this time


def election(api: KubeApi, config: Config) -> Election:
    """This controller's part in it, under its pod's name. `api` must be a client of its own: no renewal may wait behind
    other writes."""
    return Election(
        api,
        config.pod_namespace,
        config.lease,
        config.pod_name,
        lease_seconds=LEASE_SECONDS,
        renew_seconds=RENEW_SECONDS,
        keep_when_unreachable=False,
        poll_seconds=LOOK_SECONDS,
        labels={"app.kubernetes.io/name": names.PRODUCT, "app.kubernetes.io/component": "controller"},
    )
