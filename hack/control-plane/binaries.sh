# shellcheck shell=bash
# Where the binaries of the test cluster come from: looks them up, and builds
# the missing ones from Go modules into the cache. Starts nothing.

KUBERNETES_VERSION=$(sed -n 's/^[[:space:]]*k8s\.io\/kubernetes v\([^ ]*\).*/\1/p' "$HERE/go.mod")
ETCD_VERSION=$(sed -n 's/^[[:space:]]*go\.etcd\.io\/etcd\/server\/v3 v\([^ ]*\).*/\1/p' "$HERE/go.mod")
CONTAINERD_VERSION=$(sed -n 's/^[[:space:]]*github\.com\/containerd\/containerd\/v2 v\([^ ]*\).*/\1/p' "$HERE/containerd/go.mod")
CACHE_ROOT=${WORKSHOP_TEST_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/workshop-platform}/control-plane
KWOK_VERSION=$(sed -n 's/^[[:space:]]*sigs\.k8s\.io\/kwok v\([^ ]*\).*/\1/p' "$HERE/kwok/go.mod")
# The versions are in the names, so that moving one never meets an old binary.
CACHE_BIN=$CACHE_ROOT/$KUBERNETES_VERSION-etcd$ETCD_VERSION-containerd$CONTAINERD_VERSION/bin
KWOK_CACHE_BIN=$CACHE_ROOT/kwok$KWOK_VERSION/bin

# Not a part of the cluster; what tests of clusters in clusters render charts with.
HELM_VERSION=3.20.0
CONTROL_BINARIES=(etcd kube-apiserver kube-controller-manager kubectl)
CONTAINERD_BINARIES=(containerd containerd-shim-runc-v2 ctr)
NODE_BINARIES=(kube-scheduler kubelet kube-proxy "${CONTAINERD_BINARIES[@]}")
KWOK_BINARIES=(kube-scheduler kwok)

# Prints the folder of the cache that a binary lies in.
cache_of() {
  case $1 in
    kwok) printf '%s\n' "$KWOK_CACHE_BIN" ;;
    *) printf '%s\n' "$CACHE_BIN" ;;
  esac
}

# Prints the version a binary reports, as digits and dots, or nothing.
binary_version() {
  case $1 in
    */kubectl) set -- "$1" version --client ;;
    */containerd-shim-runc-v2) set -- "$1" -v ;;
    */helm) set -- "$1" version --short ;;
    *) set -- "$1" --version ;;
  esac
  "$@" 2>/dev/null | grep -oE '[0-9]+\.[0-9]+(\.[0-9]+)?' | head -n 1 || true
}

# The versions a found binary may have: Kubernetes parts must be of one minor
# version with each other, etcd and containerd only have to be recent enough.
version_fits() {
  local name=$1 version=$2
  case $name in
    etcd) [[ $version == "${ETCD_VERSION%.*}".* ]] ;;
    containerd* | ctr) [[ $version == "${CONTAINERD_VERSION%.*}".* ]] ;;
    kwok) [[ $version == "${KWOK_VERSION%.*}".* ]] ;;
    helm) [[ $version == 3.* ]] ;;
    *) [[ $version == "${KUBERNETES_VERSION%.*}".* ]] ;;
  esac
}

# Prints the path of a usable binary; fails when there is none yet.
locate() {
  local name=$1 candidate version cache
  cache=$(cache_of "$name")
  for candidate in "${KUBEBUILDER_ASSETS:+$KUBEBUILDER_ASSETS/$name}" "$(type -P "$name" || true)"; do
    [[ -n $candidate && -x $candidate ]] || continue
    version=$(binary_version "$candidate")
    if version_fits "$name" "$version"; then
      printf '%s\n' "$candidate"
      return 0
    fi
    [[ -n ${EXPLAIN:-} ]] && say "passing over $candidate: version ${version:-unknown}"
  done
  [[ -x $cache/$name ]] && printf '%s\n' "$cache/$name"
}

# As locate, and ends the run with a hint when the binary is missing.
need() {
  locate "$1" || fail "$1 is missing; run: $SELF build $2"
}

require_go() {
  local wanted have
  wanted=$(sed -n 's/^go //p' "$HERE/go.mod" "$HERE"/*/go.mod | sort -V | tail -n 1)
  if ! command -v go >/dev/null; then
    missing "go is missing: version $wanted or later is needed to build the test cluster (https://go.dev/dl/), or set KUBEBUILDER_ASSETS to a folder with ${*} of Kubernetes ${KUBERNETES_VERSION%.*} and etcd ${ETCD_VERSION%.*}"
  fi
  # An older toolchain may fetch the wanted one itself (GOTOOLCHAIN); ask it.
  if ! have=$(cd "$HERE/containerd" && go env GOVERSION 2>&1); then
    missing "go is too old: version $wanted or later is needed ($have)"
  fi
}

build_one() {
  local name=$1 module=$HERE package flags='-s -w' tags='' pin=k8s.io/component-base/version cache
  cache=$(cache_of "$name")
  if [[ $name == helm ]]; then
    # A module of its own, so that its many requirements touch nothing else here.
    (GOBIN=$CACHE_BIN GOFLAGS='' CGO_ENABLED=0 go install -trimpath -ldflags "$flags" \
      "helm.sh/helm/v3/cmd/helm@v$HELM_VERSION") >&2 || fail "building helm failed (see above)"
    return 0
  fi
  case $name in
    etcd) package=go.etcd.io/etcd/server/v3 ;;
    containerd* | ctr)
      module=$HERE/containerd
      package=github.com/containerd/containerd/v2/cmd/$name
      tags='no_btrfs no_devmapper no_zfs'
      flags+=" -X github.com/containerd/containerd/v2/version.Version=v$CONTAINERD_VERSION"
      ;;
    kwok)
      module=$HERE/kwok
      package=sigs.k8s.io/kwok/cmd/kwok
      ;;
    *)
      package=k8s.io/kubernetes/cmd/$name
      # Clients refuse a server whose version does not parse, so it is stamped in.
      flags+=" -X $pin.gitVersion=v$KUBERNETES_VERSION -X $pin.gitMajor=${KUBERNETES_VERSION%%.*}"
      flags+=" -X $pin.gitMinor=$(cut -d. -f2 <<<"$KUBERNETES_VERSION") -X $pin.gitTreeState=clean"
      ;;
  esac
  (cd "$module" && GOWORK=off GOFLAGS=-mod=readonly CGO_ENABLED=0 go build -buildvcs=false -trimpath \
    -tags "$tags" -ldflags "$flags" -o "$cache/.$name.part" "$package") >&2 ||
    fail "building $name failed (see above)"
  mv "$cache/.$name.part" "$cache/$name"
}

# Makes sure that every binary of a group can be located.
build_group() {
  local group=$1 wanted=() lacking=() name done=0 started
  case $group in
    control) wanted=("${CONTROL_BINARIES[@]}") ;;
    containerd) wanted=("${CONTAINERD_BINARIES[@]}") ;;
    node) wanted=("${CONTROL_BINARIES[@]}" "${NODE_BINARIES[@]}") ;;
    kwok) wanted=("${CONTROL_BINARIES[@]}" "${KWOK_BINARIES[@]}") ;;
    all) wanted=("${CONTROL_BINARIES[@]}" "${NODE_BINARIES[@]}" kwok helm) ;;
    helm) wanted=(helm) ;;
    *) usage ;;
  esac
  for name in "${wanted[@]}"; do locate "$name" >/dev/null || lacking+=("$name"); done
  ((${#lacking[@]})) || return 0
  require_go "${lacking[@]}"
  mkdir -p "$CACHE_BIN" "$KWOK_CACHE_BIN"
  exec 8>"$CACHE_BIN/.lock"
  flock -n 8 || { say "waiting for another build of the test cluster"; flock 8; }
  for name in "${lacking[@]}"; do
    done=$((done + 1))
    # Another process may have built it while this one waited.
    EXPLAIN=1 locate "$name" >/dev/null && continue
    say "building $name ($done of ${#lacking[@]}) …"
    started=$SECONDS
    build_one "$name"
    say "built $name in $((SECONDS - started)) s"
  done
  exec 8>&-
}
