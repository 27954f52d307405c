# shellcheck shell=bash
# Read by the scripts beside it: those of tests/cluster (progress lines, tools, docker), from the repository's root.
# shellcheck source=../tests/cluster/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../tests/cluster/lib.sh"
cd "$here/../.." || exit
