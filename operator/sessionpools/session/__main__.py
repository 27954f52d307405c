"""`sessionpools-session`, or `python -m sessionpools.session`: the supervisor of a session pod."""

import os
import sys

from sessionpools.session.config import parse_paths
from sessionpools.session.supervisor import supervise


def main() -> None:
    sys.exit(supervise(parse_paths(sys.argv[1:], os.environ)))


if __name__ == "__main__":
    main()
