# shellcheck shell=bash
# containerd, and the node made of it: containerd's configuration, the pod
# network, scheduler, kubelet and kube-proxy, and what has to be put back on the
# machine afterwards. Needs root; the node exists once per machine.

NODE_CLAIM=/run/workshop-platform-node
# Resolves on every machine, so that logs and exec need no entry in the hosts file.
NODE_NAME=localhost
NETWORK_NAME=workshop-test
BRIDGE=workshoptest0
# The bridge's own address: how a pod reaches what listens on the machine.
MACHINE_FROM_PODS=10.244.0.1
PAUSE_IMAGE=pause.local/pause:1
SERVICES_RULE=workshop-test-services
CNI_PLUGINS=/usr/lib/cni

check_containerd_requirements() {
  [[ $(id -u) == 0 ]] || missing "containerd needs root"
  need_command runc test runc
}

check_node_requirements() {
  check_containerd_requirements
  need_command iptables test iptables
  need_command conntrack test conntrack
  need_command ip test iproute2
  need_command busybox test busybox-static
  [[ -x $CNI_PLUGINS/bridge ]] || missing "$CNI_PLUGINS/bridge is missing; run: hack/deps test (Debian package containernetworking-plugins)"
}

# Takes the machine's one node, after a crashed owner as well.
claim_node() {
  local owner
  exec 9>"$NODE_CLAIM.lock"
  flock 9
  owner=$(cat "$NODE_CLAIM" 2>/dev/null || true)
  if [[ -n $owner && $owner != "$DIR" && -e $owner/.workshop-test-cluster ]]; then
    (DIR=$owner && alive kubelet) && fail "the machine's one node belongs to '$owner'; run: $SELF down $owner"
    say "ending what a crashed run left in '$owner'"
    "$HERE/control-plane" down "$owner" 9>&-
  fi
  # Rules of one whose directory somebody removed.
  forget_services
  printf '%s' "$DIR" >"$NODE_CLAIM"
  exec 9>&-
}

# Prints the snapshotter that works below DIR: overlay does not lie on overlay.
choose_snapshotter() {
  local probe=$DIR/probe name=native
  mkdir -p "$probe/lower" "$probe/upper" "$probe/work" "$probe/merged"
  if mount -t overlay overlay -o "lowerdir=$probe/lower,upperdir=$probe/upper,workdir=$probe/work" "$probe/merged" 2>/dev/null; then
    umount "$probe/merged"
    name=overlayfs
  fi
  rm -rf "$probe"
  printf '%s\n' "$name"
}

write_containerd_config() {
  local mode=$1 snapshotter=$2
  cat <<END
version = 3
root = "$DIR/containerd/root"
state = "$DIR/containerd/state"
disabled_plugins = [$([[ $mode == node ]] || printf '"io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"')]
[grpc]
  address = "$CONTAINERD_ADDRESS"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
[plugins."io.containerd.internal.v1.opt"]
  path = "$DIR/containerd/opt"
[plugins."io.containerd.transfer.v1.local"]
  [[plugins."io.containerd.transfer.v1.local".unpack_config]]
    platform = "linux"
    snapshotter = "$snapshotter"
END
  [[ $mode == node ]] || return 0
  # Lowering an OOM score needs a capability that root lacks on some machines.
  cat <<END
[plugins."io.containerd.grpc.v1.cri"]
  disable_tcp_service = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "$snapshotter"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "$PAUSE_IMAGE"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["$CNI_PLUGINS"]
    conf_dir = "$DIR/cni/net.d"
END
}

containerd_ready() { "$CTR" --address "$CONTAINERD_ADDRESS" version; }

# start_containerd plain|node: plain has no Kubernetes interface.
start_containerd() {
  local mode=$1 containerd shim snapshotter namespace
  containerd=$(need containerd containerd)
  shim=$(need containerd-shim-runc-v2 containerd)
  CTR=$(need ctr containerd)
  CONTAINERD_ADDRESS=$DIR/containerd/containerd.sock
  mkdir -p "$DIR/containerd"
  snapshotter=$(choose_snapshotter)
  write_containerd_config "$mode" "$snapshotter" >"$DIR/containerd/config.toml"
  start containerd env PATH="$(dirname "$shim"):$PATH:/usr/local/sbin:/usr/sbin:/sbin" \
    "$containerd" --config "$DIR/containerd/config.toml"
  wait_for containerd containerd_ready
  # runc keeps its state per namespace in one place of the machine, so that
  # containers of one name in two clusters would meet in a common namespace.
  namespace=t$(sha256sum <<<"$DIR" | cut -c1-12)
  [[ $mode == plain ]] || namespace=k8s.io
  set_env CONTAINERD_ADDRESS "$CONTAINERD_ADDRESS"
  set_env CONTAINERD_NAMESPACE "$namespace"
  set_env CONTAINERD_SNAPSHOTTER "$snapshotter"
  set_env CONTAINERD_PID "$(cut -d' ' -f1 "$DIR/pid/containerd")"
  set_env CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS 1
  set_env CTR "$CTR"
}

# An image that only sleeps, to hold a pod's namespaces; it comes from nowhere.
import_pause_image() {
  local work=$DIR/pause
  mkdir -p "$work/root/bin"
  cp "$(type -P busybox)" "$work/root/bin/busybox"
  "$HERE/../image-archive" "$work/root" "$work/image.tar" "$PAUSE_IMAGE" \
    '{"Entrypoint":["/bin/busybox","sleep","2147483647"]}'
  "$CTR" --address "$CONTAINERD_ADDRESS" -n k8s.io images import "$work/image.tar" >"$DIR/log/pause.log" 2>&1 ||
    fail "importing the pause image failed: $(tail -n 3 "$DIR/log/pause.log")"
  rm -rf "$work"
}

write_pod_network() {
  mkdir -p "$DIR/cni/net.d" "$DIR/cni/addresses"
  cat >"$DIR/cni/net.d/10-test.conflist" <<END
{
  "cniVersion": "1.0.0",
  "name": "$NETWORK_NAME",
  "plugins": [
    {
      "type": "bridge", "bridge": "$BRIDGE", "isGateway": true, "ipMasq": true, "hairpinMode": true,
      "ipam": {
        "type": "host-local", "dataDir": "$DIR/cni/addresses",
        "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
END
}

write_kubelet_config() {
  cat <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 127.0.0.1
port: $1
healthzPort: 0
readOnlyPort: 0
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
containerRuntimeEndpoint: unix://$CONTAINERD_ADDRESS
cgroupDriver: cgroupfs
cgroupRoot: ${WORKSHOP_TEST_CGROUP:-/}
failCgroupV1: false
enforceNodeAllocatable: []
failSwapOn: false
makeIPTablesUtilChains: false
oomScoreAdj: 0
resolvConf: /dev/null
podLogsDir: $DIR/pod-logs
volumePluginDir: $DIR/kubelet/volume-plugins
serializeImagePulls: false
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 50Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}
END
}

write_proxy_config() {
  cat <<END
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $DIR/cluster.kubeconfig}
hostnameOverride: $NODE_NAME
clusterCIDR: 10.244.0.0/16
mode: iptables
healthzBindAddress: 127.0.0.1:$1
metricsBindAddress: 127.0.0.1:$2
oomScoreAdj: 0
# Pods of one bridge reach each other through a service without br_netfilter.
iptables: {masqueradeAll: true}
# The limits are the machine's own and stay as they are.
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
END
}

# What asks for a Service before kube-proxy knows it would leave the machine by its default route, and some networks
# answer. These rules come after kube-proxy's translation: only what was not translated meets them.
keep_services_here() {
  local chain
  for chain in OUTPUT FORWARD; do
    iptables -w -I "$chain" -p tcp -d "$SERVICES" -m comment --comment "$SERVICES_RULE" -j REJECT --reject-with tcp-reset
  done
}

forget_services() {
  local chain
  for chain in OUTPUT FORWARD; do
    while iptables -w -D "$chain" -p tcp -d "$SERVICES" -m comment --comment "$SERVICES_RULE" -j REJECT --reject-with tcp-reset 2>/dev/null; do :; done
  done
}

# Ready, and the taint of a new node taken off, so that pods are scheduled.
node_ready() {
  [[ $(as_cluster get node "$NODE_NAME" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}/{.spec.taints}') == True/ ]]
}

start_node() {
  local scheduler kubelet proxy address kubelet_flags=() ports=() i port
  scheduler=$(need kube-scheduler node)
  kubelet=$(need kubelet node)
  proxy=$(need kube-proxy node)
  for ((i = 0; i < 4; i++)); do
    port=$(pick_port)
    ports+=("$port")
  done
  start kube-scheduler "$scheduler" --kubeconfig "$DIR/cluster.kubeconfig" --leader-elect=false \
    --bind-address 127.0.0.1 --secure-port "${ports[0]}" --cert-dir "$DIR/tls/scheduler"
  write_pod_network
  start_containerd node
  import_pause_image
  # Without a default route kubelet cannot choose the node's address itself.
  if [[ -z $(ip -4 route show default) ]]; then
    address=$(ip -4 -o address show scope global | awk '{ sub("/.*", "", $4); print $4; exit }')
    [[ -n $address ]] || missing "the node needs one network address besides loopback"
    kubelet_flags=(--node-ip "$address")
  fi
  record_machine
  keep_services_here
  write_kubelet_config "${ports[1]}" >"$DIR/kubelet.yaml"
  start kubelet "$kubelet" --config "$DIR/kubelet.yaml" --kubeconfig "$DIR/cluster.kubeconfig" \
    --root-dir "$DIR/kubelet" --cert-dir "$DIR/kubelet/pki" --hostname-override "$NODE_NAME" "${kubelet_flags[@]}"
  write_proxy_config "${ports[2]}" "${ports[3]}" >"$DIR/proxy.yaml"
  start kube-proxy "$proxy" --config "$DIR/proxy.yaml"
  wait_for "the node" node_ready
  set_env NODE_NAME "$NODE_NAME"
  set_env MACHINE_FROM_PODS "$MACHINE_FROM_PODS"
}

# Ends the containers whose shims are dead already: shims outlive containerd, and
# containers outlive shims.
stop_containers() {
  local bundle namespace id socket
  for bundle in "$DIR"/containerd/state/io.containerd.runtime.v2.task/*/*/; do
    [[ -d $bundle ]] || continue
    bundle=${bundle%/}
    id=${bundle##*/}
    namespace=${bundle%/*}
    namespace=${namespace##*/}
    runc --root "/run/containerd/runc/$namespace" delete --force "$id" >/dev/null 2>&1 || true
    socket=$(grep -oh '/run/containerd/s/[0-9a-f]*' "$bundle"/bootstrap.json "$bundle"/address 2>/dev/null | head -n 1 || true)
    [[ -z $socket ]] || rm -f "$socket"
    # Only what is empty goes; another containerd may use the namespace k8s.io.
    rmdir "/run/containerd/runc/$namespace" 2>/dev/null || true
    find /sys/fs/cgroup -maxdepth 2 -type d -name "$namespace" -exec rmdir {} + 2>/dev/null || true
  done
}

unmount_below() {
  local point
  awk -v dir="$DIR/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | sort -r | while IFS= read -r point; do
    umount -l "$point" || true
  done
}

# The kernel settings that the network plugins, kubelet and kube-proxy change.
KERNEL_SETTINGS=(net/ipv4/ip_forward net/ipv4/conf/all/route_localnet vm/overcommit_memory vm/panic_on_oom
  kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes)

# Writes down how the machine's network and kernel are set before the node.
record_machine() {
  local setting family
  mkdir -p "$DIR/machine"
  for family in iptables ip6tables; do
    "$family-save" 2>/dev/null | sed -n 's/^:\([^ ]*\).*/\1/p' | sort -u >"$DIR/machine/$family" || true
  done
  for setting in "${KERNEL_SETTINGS[@]}"; do
    [[ -r /proc/sys/$setting ]] && printf '%s %s\n' "$setting" "$(<"/proc/sys/$setting")"
  done >"$DIR/machine/settings.part" || true
  # Last, and whole: its presence says that there is something to put back.
  mv "$DIR/machine/settings.part" "$DIR/machine/settings"
}

# Prints what iptables-restore needs to take out the chains of Kubernetes and of
# the network plugins that were not there before, with the jumps into them.
removal_of_new_chains() {
  local family=$1
  "$family-save" 2>/dev/null | awk -v before="$DIR/machine/$family" '
    BEGIN { while ((getline name < before) > 0) old[name] = 1 }
    function flush_table(name) {
      for (name in fresh) removal = removal "-F " name "\n"
      for (name in fresh) removal = removal "-X " name "\n"
      if (removal != "") printf "%s\n%sCOMMIT\n", table, removal
      delete fresh; removal = ""
    }
    /^\*/ { table = $0 }
    /^:(KUBE|CNI)-/ { name = substr($1, 2); if (!(name in old)) fresh[name] = 1 }
    /^-A / {
      if ($2 in fresh) next
      for (i = 3; i < NF; i++) if ($i == "-j" && $(i + 1) in fresh) { removal = removal "-D" substr($0, 3) "\n"; break }
    }
    /^COMMIT/ { flush_table() }
  '
}

# Takes the pod network, the service rules and the claim off the machine again.
restore_machine() {
  local setting value family removal
  [[ $(cat "$NODE_CLAIM" 2>/dev/null) == "$DIR" ]] || return 0
  if [[ -e $DIR/machine/settings ]]; then
    ip link delete "$BRIDGE" 2>/dev/null || true
    forget_services
    for family in iptables ip6tables; do
      removal=$(removal_of_new_chains "$family")
      [[ -z $removal ]] || "$family-restore" --noflush <<<"$removal" || say "rules of the pod network stay in $family"
    done
    while read -r setting value; do
      [[ $(<"/proc/sys/$setting") == "$value" ]] || printf '%s\n' "$value" >"/proc/sys/$setting" || true
    done <"$DIR/machine/settings"
    find /sys/fs/cgroup -depth -type d -path '*/kubepods*' -exec rmdir {} + 2>/dev/null || true
  fi
  rm -f "$NODE_CLAIM"
}
