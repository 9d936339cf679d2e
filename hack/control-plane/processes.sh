# shellcheck shell=bash
# Processes, ports, and the end of both: whatever is started below a cluster's
# directory is recorded there and can be ended from there, also after a crash.

PORTS_DIR=/tmp/workshop-platform-ports
# Every process of a cluster carries this in its environment, shims included,
# so that one whose record was lost is still found.
MARK=WORKSHOP_TEST_CLUSTER

# Prints a loopback port that nothing listens on and no other cluster has taken.
# It lies below the range the kernel gives to outgoing connections.
pick_port() {
  local port hex held
  if [[ ! -d $PORTS_DIR ]]; then mkdir -p -m 1777 "$PORTS_DIR"; fi
  (
    flock 7
    for _ in {1..200}; do
      port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
      hex=$(printf ':%04X' "$port")
      if awk -v h="$hex" '$2 ~ h "$" || $3 ~ h "$" { found = 1 } END { exit !found }' /proc/net/tcp /proc/net/tcp6 2>/dev/null; then
        continue
      fi
      if [[ -e $PORTS_DIR/$port ]]; then
        held=$(<"$PORTS_DIR/$port")
        [[ -e $held/.workshop-test-cluster ]] && continue
        rm -f "$PORTS_DIR/$port" 2>/dev/null || continue
      fi
      printf '%s' "$DIR" >"$PORTS_DIR/$port"
      printf '%s\n' "$port"
      exit 0
    done
    exit 1
  ) 7>"$PORTS_DIR/.lock.$UID" || fail "no free port between 20000 and 32000"
}

release_ports() {
  local file
  for file in "$PORTS_DIR"/[0-9]*; do
    [[ -f $file && $(<"$file") == "$DIR" ]] && rm -f "$file"
  done
  return 0
}

# Prints "pid start-time"; the pair names a process for ever, a pid alone does not.
process_identity() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  stat=${stat##*) }
  # A zombie is dead, whether or not its parent has collected it.
  [[ ${stat%% *} == [ZX] ]] && return 1
  # shellcheck disable=SC2086 # split into fields on purpose
  set -- "$1" $stat
  printf '%s %s\n' "$1" "${21}"
}

# start NAME COMMAND…: a process of its own session that outlives the caller.
start() {
  local name=$1
  shift
  printf '%s\0' "$@" >"$DIR/command/$name"
  env "$MARK=$DIR" setsid "$@" </dev/null >>"$DIR/log/$name.log" 2>&1 7>&- 8>&- 9>&- &
  process_identity $! >"$DIR/pid/$name" || true
  disown $!
}

# Kills what start NAME has started, and starts the same command again.
start_again() {
  local name=$1 command pid threads tries
  mapfile -d '' -t command <"$DIR/command/$name"
  pid=$(cut -d' ' -f1 "$DIR/pid/$name")
  kill_and_wait "$pid"
  # Dead by its state, it may still have threads, and with them its port.
  for ((tries = 0; tries < 100; tries++)); do
    threads=("/proc/$pid/task"/*)
    ((${#threads[@]} > 1)) || break
    sleep 0.05
  done
  start "$name" "${command[@]}"
}

alive() {
  local record
  record=$(cat "$DIR/pid/$1" 2>/dev/null) || return 1
  [[ -n $record && $(process_identity "${record%% *}") == "$record" ]]
}

# wait_for WHAT COMMAND…: polls until the command succeeds; ends the run when a
# process of the cluster has died meanwhile or the deadline has passed.
wait_for() {
  local what=$1 file
  shift
  until "$@" >"$DIR/log/wait.log" 2>&1; do
    for file in "$DIR"/pid/*; do
      alive "${file##*/}" || fail "${file##*/} ended while waiting for $what; the end of its log:
$(tail -n 15 "$DIR/log/${file##*/}.log" 2>/dev/null)"
    done
    ((SECONDS < DEADLINE)) || fail "$what did not come within the deadline: $(tail -n 3 "$DIR/log/wait.log")"
    sleep 0.1
  done
}

# Kills the given process ids and waits until they are gone.
kill_and_wait() {
  local pid tries
  (($#)) || return 0
  kill -KILL "$@" 2>/dev/null || true
  for pid in "$@"; do
    for ((tries = 0; tries < 100; tries++)); do
      process_identity "$pid" >/dev/null || continue 2
      sleep 0.05
    done
    say "process $pid does not end"
  done
}

# Prints the processes that carry this cluster's mark, except this very run.
marked_processes() {
  local file
  # Prints nothing for the processes of others, whose environment is unreadable.
  { grep -lzxF "$MARK=$DIR" /proc/[0-9]*/environ 2>/dev/null || true; } | while IFS= read -r file; do
    file=${file#/proc/}
    file=${file%/environ}
    [[ $file != "$$" && $file != "$BASHPID" ]] && printf '%s\n' "$file"
  done
}

# Ends every process of the cluster, the recorded ones and the marked ones.
stop_processes() {
  local file record pids=() pid
  for file in "$DIR"/pid/*; do
    [[ -f $file ]] || continue
    record=$(<"$file")
    # The watchdog becomes this run when it is the one that ends the cluster.
    if [[ ${record%% *} != "$$" ]] && alive "${file##*/}"; then
      pids+=("${record%% *}")
    fi
  done
  kill_and_wait "${pids[@]}"
  pids=()
  while IFS= read -r pid; do pids+=("$pid"); done < <(marked_processes)
  kill_and_wait "${pids[@]}"
  rm -f "$DIR"/pid/*
}
