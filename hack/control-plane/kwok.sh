# shellcheck shell=bash
# Simulated nodes: kwok plays the kubelets of any number of nodes, and pods on
# them become Ready at once, whatever their image. Runs no container.

kwok_nodes_ready() {
  local ready
  ready=$(as_cluster get nodes -l workshop-test=kwok \
    -o 'jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status}/{.spec.taints}{"\n"}{end}' | grep -cx 'True/' || true)
  ((ready == $1))
}

# start_kwok N: the scheduler, kwok and its nodes.
start_kwok() {
  local count=$1 kwok scheduler port i
  kwok=$(need kwok kwok)
  scheduler=$(need kube-scheduler kwok)
  port=$(pick_port)
  start kube-scheduler "$scheduler" --kubeconfig "$DIR/cluster.kubeconfig" --leader-elect=false \
    --bind-address 127.0.0.1 --secure-port "$port" --cert-dir "$DIR/tls/scheduler" \
    --kube-api-qps 2000 --kube-api-burst 4000
  for ((i = 1; i <= count; i++)); do
    printf '{"apiVersion":"v1","kind":"Node","metadata":{"name":"kwok-%d","labels":{"workshop-test":"kwok"}}}\n' "$i"
  done | as_cluster create -f - >"$DIR/log/nodes.log" || fail "the simulated nodes were refused"
  # Its built-in stages are the fast ones: a pod is Ready when it is scheduled, and gone when it is deleted.
  start kwok "$kwok" --kubeconfig "$DIR/cluster.kubeconfig" --manage-all-nodes --cidr 10.128.0.1/9
  wait_for "the simulated nodes" kwok_nodes_ready "$count"
  set_env KWOK_NODES "$count"
  set_env_pid kwok
}
