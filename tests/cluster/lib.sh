# shellcheck shell=bash disable=SC2034  # some variables are for the scripts that read this
# Shared by the scripts beside it: versions, the cache, progress lines, the Go builds and the docker daemon.
set -euo pipefail
shopt -s inherit_errexit
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/session-pools
k8s_version=v$(sed -nE 's,.*k8s.io/kubernetes v([0-9.]+).*,\1,p' "$here/go/kubernetes/go.mod")
# The node image kind publishes nearest to that version; tried first, built here (image/node) if it can't be had.
published_node=${KIND_NODE_IMAGE:-kindest/node:v1.34.3}
python_image=python:3.11-slim-bookworm

export UP_STARTED=${UP_STARTED:-$(date +%s)} # scripts that call scripts count from the first one's start
step() { printf '[%4ds] %s\n' $(($(date +%s) - UP_STARTED)) "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null; }
hash_of() { cat "$@" | sha256sum | cut -c1-12; }

# apt_need COMMAND=PACKAGE...: install what is missing, when root on Debian
apt_need() {
	local pair missing=()
	for pair in "$@"; do have "${pair%%=*}" || missing+=("${pair#*=}"); done
	[ ${#missing[@]} -eq 0 ] && return
	if [ "$(id -u)" != 0 ] || ! have apt-get; then die "missing, and not root on Debian: ${missing[*]}"; fi
	step "apt-get install ${missing[*]}"
	{ apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } \
		>"$cache/apt.log" 2>&1 || die "apt-get failed: $cache/apt.log"
}

# go_build MODULE PACKAGE...: build commands of go/MODULE into $cache/MODULE-HASH, once; prints that folder.
go_build() {
	local module=$1 dir missing=() pkg
	shift
	dir=$cache/$module-$(hash_of "$here/go/$module/go.mod" "$here/go/$module/go.sum")
	for pkg in "$@"; do [ -x "$dir/$(binary_of "$pkg")" ] || missing+=("$pkg"); done
	if [ ${#missing[@]} -gt 0 ]; then
		have go || die "no Go toolchain in PATH (any release that satisfies go/$module/go.mod)"
		step "go build ($module): ${missing[*]##*/cmd/}"
		local v=$k8s_version x=
		for pkg in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
			x+=" -X $pkg.gitVersion=$v -X $pkg.gitMajor=1 -X $pkg.gitMinor=$(cut -d. -f2 <<<"$v") -X $pkg.gitTreeState=clean"
		done
		[ "$module" = kubernetes ] || x=
		mkdir -p "$dir"
		(cd "$here/go/$module" && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w$x" -o "$dir/" "${missing[@]}") \
			>"$cache/go-$module.log" 2>&1 || { tail -n 5 "$cache/go-$module.log" >&2; die "go build failed: $cache/go-$module.log"; }
		step "go build ($module) done"
	fi
	echo "$dir"
}
# The name `go build` gives a command: the last path element that is not a major version
binary_of() { sed -E 's,/v[0-9]+$,,; s,.*/,,' <<<"$1"; }

kubernetes_bins() { go_build kubernetes k8s.io/kubernetes/cmd/{kube-apiserver,kube-controller-manager,kube-proxy,kube-scheduler,kubeadm,kubectl,kubelet}; }
runtime_bins() { go_build runtime go.etcd.io/etcd/server/v3 github.com/coredns/coredns; }
kind_dir() { go_build tools sigs.k8s.io/kind; }

# kubectl and kind for the scripts: those in PATH if any, else built
use_tools() {
	mkdir -p "$cache"
	PATH=$(kind_dir):$PATH
	have kubectl || PATH=$(go_build kubernetes k8s.io/kubernetes/cmd/kubectl):$PATH
	export PATH
}

# Does this machine's bounding set lack a capability that its kernel knows?
lacks_capability() {
	local bounding last
	bounding=$((16#$(awk '/^CapBnd/ {print $2}' /proc/self/status)))
	last=$(cat /proc/sys/kernel/cap_last_cap)
	((bounding != (1 << (last + 1)) - 1))
}

# A docker daemon: the one that answers, never changed; else one started here, docker being installed if it is missing.
use_docker() {
	mkdir -p "$cache"
	if docker info >/dev/null 2>&1; then
		if lacks_capability && [ "$(docker info --format '{{.DefaultRuntime}}')" = runc ]; then
			die "this machine lacks a capability, so this docker daemon can't start privileged containers: make runc-clamp its default runtime (use_docker in lib.sh shows the flags)"
		fi
		return
	fi
	[ "$(id -u)" = 0 ] || die "no docker daemon answers, and starting one needs root"
	apt_need dockerd=docker.io containerd=containerd runc=runc iptables=iptables
	if [ -d /run/systemd/system ]; then
		systemctl start docker
	else
		local flags=()
		if [ ! -e /etc/docker/daemon.json ]; then # a configuration of the machine's own has the last word
			flags=(--default-cgroupns-mode private)
			if lacks_capability; then
				install -m 755 "$here/runc-clamp" "$cache/runc-clamp"
				flags+=(--add-runtime "clamp=$cache/runc-clamp" --default-runtime clamp)
			fi
		fi
		step "starting dockerd ${flags[*]}"
		setsid dockerd "${flags[@]}" >"$cache/dockerd.log" 2>&1 </dev/null &
	fi
	for _ in $(seq 60); do docker info >/dev/null 2>&1 && return; sleep 0.5; done
	die "dockerd did not come up: $cache/dockerd.log"
}

nodes_of() { docker ps -a --filter "label=io.x-k8s.kind.cluster=$1" --format '{{.Names}}' | sort; }
