#!/usr/bin/env bash
# A real SLURM on one machine, for tests: up | down | status | env
#
#   scripts/local_slurm.sh up            install what is missing (apt), start, wait until the nodes are idle
#   . <(scripts/local_slurm.sh env)      export SLURM_CONF, without which no SLURM command finds it
#   sbatch --wrap hostname               use it
#   scripts/local_slurm.sh down          cancel its jobs, end its daemons, remove its folder
#   scripts/local_slurm.sh status        exit 0 if it is up
#
# It starts munged, slurmctld and one slurmd per node (node1, node2, ..., all of them this machine, each with
# a port of its own) in the background. No systemd, cgroups or GPUs are needed. /etc/slurm and /etc/munge are
# left alone; outside its own folder it writes one marked line to /etc/hosts, because the names of nodes must
# resolve as on a cluster, and `down` takes it out again. `up` when it is up and `down` when it is down do
# nothing. Several can run beside each other, each with a LOCAL_SLURM_DIR and LOCAL_SLURM_PORT of its own.
#
# From the environment:
#   LOCAL_SLURM_DIR     folder of its state      (/tmp/local_slurm.UID)
#   LOCAL_SLURM_NODES   number of nodes          (2)
#   LOCAL_SLURM_CPUS    CPUs a node claims       (4; may be more than there are)
#   LOCAL_SLURM_MEM     MiB a node claims        (4096)
#   LOCAL_SLURM_GPUS    GPUs a node claims       (0; granted and counted, with nothing behind them)
#   LOCAL_SLURM_PORT    first TCP port           (26817; PORT .. PORT + NODES are used)
#   LOCAL_SLURM_CRED_S  life of a step's credential, seconds (5; a requeued job waits this long and one more
#                       before it starts again, 121 s on most clusters)
#   LOCAL_SLURM_KEEP    1: `down` keeps the folder, for its logs
# Needs root: it installs packages, and slurmd starts jobs. Exit code 1 if it failed, and why on stderr.
set -u
DIR=${LOCAL_SLURM_DIR:-/tmp/local_slurm.$(id -u)}
NODES=${LOCAL_SLURM_NODES:-2}
CPUS=${LOCAL_SLURM_CPUS:-4}
MEM=${LOCAL_SLURM_MEM:-4096}
GPUS=${LOCAL_SLURM_GPUS:-0}
PORT=${LOCAL_SLURM_PORT:-26817}
CRED_S=${LOCAL_SLURM_CRED_S:-5}
KEEP=${LOCAL_SLURM_KEEP:-0}
CONF=$DIR/slurm.conf
SOCKET=$DIR/run/munge.socket
PATH=$PATH:/usr/sbin:/sbin

say() { printf 'local_slurm: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

wait_for() { # SECONDS COMMAND...
  local left=$(($1 * 10))
  shift
  while [ "$left" -gt 0 ]; do
    "$@" && return 0
    sleep 0.1
    left=$((left - 1))
  done
  return 1
}

# The pid of our daemon NAME; nothing if its pid file is stale or names somebody else's process.
pid_of() {
  local pid
  pid=$(cat "$DIR/run/$1.pid" 2>/dev/null) || return 1
  case $pid in '' | *[!0-9]*) return 1 ;; esac
  if ! tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "$DIR/"; then
    tr '\0' '\n' 2>/dev/null <"/proc/$pid/environ" | grep -qxF -- "SLURM_CONF=$CONF" || return 1
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$1" ] || return 1
  fi
  echo "$pid"
}

daemons() {
  local node count=$NODES
  [ -r "$DIR/nodes" ] && read -r count <"$DIR/nodes"
  for node in $(seq 1 "$count"); do echo "slurmd-node$node"; done
  printf '%s\n' slurmctld munged
}

is_up() {
  local name
  for name in $(daemons); do pid_of "$name" >/dev/null || return 1; done
}

find_missing() {
  missing=
  command -v munged >/dev/null || missing="$missing munge"
  command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v sbatch >/dev/null \
    || missing="$missing slurm-wlm"
  [ -n "$missing" ]
}

install_missing() {
  local missing
  find_missing || return 0
  [ "$(id -u)" = 0 ] || die "not installed:$missing (run as root, or install them)"
  command -v apt-get >/dev/null || die "not installed:$missing, and there is no apt-get"
  exec 9>/tmp/local_slurm.install.lock
  flock 9 # somebody else may be at it
  find_missing || { exec 9>&-; return 0; }
  say "installing$missing"
  # shellcheck disable=SC2086
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; } \
    >"$DIR/apt.log" 2>&1 </dev/null || die "apt-get failed, see $DIR/apt.log"
  exec 9>&- # or the daemons would hold it
}

write_conf() {
  local node host
  host=$(hostname -s 2>/dev/null || hostname)
  umask 022
  mkdir -p "$DIR"/run "$DIR"/log "$DIR"/state "$DIR"/spool || die "cannot write $DIR"
  [ -s "$DIR/munge.key" ] || (umask 077; head -c 128 /dev/urandom >"$DIR/munge.key")
  {
    # FirstJobId: Lightning's port follows from the job's id, which must differ between two of these.
    cat <<CONF
ClusterName=local
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=root
SlurmdUser=root
FirstJobId=$((PORT % 9000))
AuthType=auth/munge
AuthInfo=socket=$SOCKET,cred_expire=$CRED_S
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool/%n
SlurmctldPidFile=$DIR/run/slurmctld.pid
SlurmdPidFile=$DIR/run/slurmd-%n.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd-%n.log
SlurmctldDebug=info
SlurmdDebug=info
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$DIR/log/jobcomp.log
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,bf_interval=1,sched_interval=1
JobRequeue=1
MinJobAge=3600
KillWait=5
BatchStartTimeout=30
MessageTimeout=30
CompleteWait=0
InactiveLimit=0
SlurmctldTimeout=60
SlurmdTimeout=60
CONF
    [ "$GPUS" -gt 0 ] && echo "GresTypes=gpu"
    for node in $(seq 1 "$NODES"); do
      printf 'NodeName=node%d NodeHostname=%s NodeAddr=127.0.0.1 Port=%d CPUs=%d RealMemory=%d State=UNKNOWN' \
        "$node" "$host" $((PORT + node)) "$CPUS" "$MEM"
      [ "$GPUS" -gt 0 ] && printf ' Gres=gpu:%d' "$GPUS"
      printf '\n'
    done
    echo "PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO"
  } >"$CONF"
  [ "$GPUS" -gt 0 ] && write_gres
  echo "$NODES" >"$DIR/nodes"
}

write_gres() { # a GPU without a file behind it makes its node invalid
  local gpu
  mkdir -p "$DIR/dev"
  for gpu in $(seq 0 $((GPUS - 1))); do
    : >"$DIR/dev/gpu$gpu"
    echo "NodeName=node[1-$NODES] Name=gpu File=$DIR/dev/gpu$gpu"
  done >"$DIR/gres.conf"
}

munge_answers() { munge -S "$SOCKET" -n >/dev/null 2>&1; }
controller_answers() { SLURM_CONF=$CONF scontrol ping 2>/dev/null | grep -q 'is UP'; }
nodes_idle() { [ "$(SLURM_CONF=$CONF sinfo -h -N -o %T 2>/dev/null | grep -c '^idle$')" = "$NODES" ]; }
no_jobs() { [ -z "$(SLURM_CONF=$CONF squeue -h -o %i 2>/dev/null)" ]; }

up() {
  local node log
  if is_up && controller_answers; then
    say "already up ($DIR)"
    return 0
  fi
  mkdir -p "$DIR" || die "cannot write $DIR"
  install_missing
  [ "$(id -u)" = 0 ] || die "run as root"
  [ -e "$DIR/nodes" ] && { stop_daemons; end_steps; }
  write_conf
  hosts_add
  # No standard input, and output to a file: a daemon must not hold the pipe of whoever calls this.
  munged --force --socket="$SOCKET" --key-file="$DIR/munge.key" --num-threads=2 \
    --pid-file="$DIR/run/munged.pid" --log-file="$DIR/log/munged.log" --seed-file="$DIR/state/munge.seed" \
    </dev/null >>"$DIR/log/start.log" 2>&1 || die "munged failed, see $DIR/log"
  wait_for 10 munge_answers || die "munged does not answer, see $DIR/log"
  slurmctld -c -f "$CONF" </dev/null >>"$DIR/log/start.log" 2>&1 || die "slurmctld failed, see $DIR/log"
  wait_for 15 controller_answers || die "slurmctld does not answer, see $DIR/log"
  for node in $(seq 1 "$NODES"); do
    slurmd -N "node$node" -f "$CONF" </dev/null >>"$DIR/log/start.log" 2>&1 \
      || die "slurmd of node$node failed, see $DIR/log"
  done
  wait_for 30 nodes_idle || {
    for log in "$DIR"/log/*.log; do say "$log:"; tail -5 "$log" >&2; done
    die "the nodes did not become idle"
  }
  say "up: $NODES nodes x $CPUS CPUs, SLURM_CONF=$CONF"
}

stop_daemons() { # all at once: each takes up to 2 s to stop
  local name pid pids=
  for name in $(daemons); do
    pid=$(pid_of "$name") && kill "$pid" 2>/dev/null && pids="$pids $pid"
  done
  for pid in $pids; do
    wait_for 10 gone "$pid" || { say "pid $pid did not stop in 10 s: SIGKILL"; kill -9 "$pid" 2>/dev/null; }
  done
}
gone() { ! kill -0 "$1" 2>/dev/null; }

our_steps() { # step daemons of our nodes, and the processes of their jobs
  local process environment
  for process in /proc/[0-9]*; do
    environment=$(tr '\0' '\n' 2>/dev/null <"$process/environ") || continue
    case $'\n'$environment$'\n' in *$'\n'"SLURM_CONF=$CONF"$'\n'*) ;; *) continue ;; esac
    case $'\n'$environment in *$'\n'SLURM_JOB_ID=*) echo "${process#/proc/}"; continue ;; esac
    case $(tr '\0' ' ' 2>/dev/null <"$process/cmdline") in "slurmstepd: "*) echo "${process#/proc/}" ;; esac
  done
}
no_steps() { [ -z "$(our_steps)" ]; }

end_steps() { # what a controller that died could not cancel
  local name pid
  for name in TERM KILL; do
    no_steps && return 0
    for pid in $(our_steps); do kill "-$name" "$pid" 2>/dev/null; done
    wait_for 3 no_steps && return 0
  done
}

hosts_remove() { # written in place: the file may be a mount
  local rest
  grep -qF -- "# local_slurm $DIR" /etc/hosts || return 0
  rest=$(grep -vF -- "# local_slurm $DIR" /etc/hosts) && printf '%s\n' "$rest" >/etc/hosts
}

hosts_add() {
  local names
  hosts_remove
  names=$(printf ' node%d' $(seq 1 "$NODES"))
  printf '127.0.0.1%s # local_slurm %s\n' "$names" "$DIR" 2>/dev/null >>/etc/hosts \
    || say "cannot write /etc/hosts: the names of nodes will not resolve"
}

down() {
  if [ ! -e "$DIR/nodes" ]; then
    say "not up ($DIR)"
    return 0
  fi
  if is_up && controller_answers && ! no_jobs; then
    # shellcheck disable=SC2046
    SLURM_CONF=$CONF scancel $(SLURM_CONF=$CONF squeue -h -o %A | sort -u) >/dev/null 2>&1
    wait_for 15 no_jobs || say "some jobs did not end in 15 s"
  fi
  stop_daemons
  end_steps
  hosts_remove
  if [ "$KEEP" = 1 ]; then
    rm -f "$DIR/nodes"
  else
    rm -rf "${DIR:?}"
  fi
  say "down"
}

status() {
  local name pid code=0
  for name in $(daemons); do
    if pid=$(pid_of "$name"); then
      printf '%-14s pid %s\n' "$name" "$pid"
    else
      printf '%-14s not running\n' "$name"
      code=1
    fi
  done
  [ "$code" = 0 ] || return 1
  controller_answers || { say "slurmctld does not answer"; return 1; }
  SLURM_CONF=$CONF sinfo -N -o '%N %T %c %m %G'
  SLURM_CONF=$CONF squeue
}

case ${1:-} in
  up) up ;;
  down) down ;;
  status) status ;;
  env) echo "export SLURM_CONF='$CONF'" ;;
  *) sed -n '2,/^set -u/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
