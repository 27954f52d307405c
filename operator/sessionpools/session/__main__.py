"""`sessionpools-session`, or `python -m sessionpools.session`: the supervisor of a session pod."""

from __future__ import annotations

import os
import sys
import traceback

from sessionpools.session import termination
from sessionpools.session.config import ConfigError, Paths, RevisionSpec, parse_paths
from sessionpools.session.log import Log
from sessionpools.session.supervisor import Supervisor


def supervise(paths: Paths) -> int:
    """Run a session pod to its end; the exit code of the process."""
    log = Log()
    try:
        spec = RevisionSpec.read(paths.revision_file)
    except ConfigError as error:
        log("failed", level="error", message=str(error))
        termination.write(paths.termination_log, f"ConfigInvalid: {error}")
        return 1
    supervisor = Supervisor(paths, spec, log)
    try:
        return supervisor.run()
    except Exception as error:  # a mistake of ours: the kubelet starts the container again
        supervisor.fail(f"SupervisorError: {type(error).__name__}: {error}", traceback.format_exc())
        return 1


def main() -> None:
    sys.exit(supervise(parse_paths(sys.argv[1:], os.environ)))


if __name__ == "__main__":
    main()
