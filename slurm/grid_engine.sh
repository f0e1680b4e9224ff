# What the job scripts of Grid Engine share: a job's number and time, its nodes, a process for each of their GPUs, and
# its end. bu.qsub and vllm.qsub source this file before begin.sh.

trap '' USR1 USR2  # the warning reaches all processes of a job, and would end the scripts

job=$JOB_ID
task=
if [ "${SGE_TASK_ID:-undefined}" != undefined ]; then
    job=${JOB_ID}_$SGE_TASK_ID
    task=$SGE_TASK_ID
fi

# At h_rt the job would be over for good. The trainer stops a quarter of an hour earlier, and the job is started again
request() { qstat -j "$JOB_ID" 2>/dev/null | sed -n "s/^hard resource_list:.*[ ,]$1=\([0-9]*\).*/\1/p"; }
h_rt=$(request h_rt)
h_rt=${h_rt:-43200}
margin=$((h_rt > 3600 ? 900 : h_rt / 4))
export RLLAB_STOP_AFTER=${RLLAB_STOP_AFTER:-$((h_rt - margin))}
export RLLAB_WARNING=${RLLAB_WARNING:-$((margin * 2 / 3))}  # a round that is not over so many seconds later is given up

# The nodes of the job, of which the first one runs this script, and the GPUs that it has on each
if [ -f "$PE_HOSTFILE" ]; then mapfile -t hosts < <(awk '!seen[$1]++ { print $1 }' "$PE_HOSTFILE"); fi
nodes=${#hosts[@]}
((nodes > 1)) || hosts=(localhost)
if [ -n "$CUDA_VISIBLE_DEVICES" ]; then
    IFS=, read -ra devices <<<"$CUDA_VISIBLE_DEVICES"
else
    mapfile -t devices < <(seq 0 $(($(request gpus) - 1)))
fi
each=$((${#devices[@]} > 1 ? ${#devices[@]} : 1))

on() {  # on HOST COMMAND: becomes a command of bash on another node of the job, with the environment of here
    exec qrsh -inherit -V "$1" bash -s <<<"trap '' USR1 USR2
        $(declare -p python rllab each; declare -f ranks together)
        $2"
}

ranks() {  # ranks FIRST: starts a process for each GPU of this node, with ranks from FIRST on
    local k
    for ((k = 0; k < each; k++)); do
        RANK=$(($1 + k)) LOCAL_RANK=$k "$python" "${rllab[@]}" </dev/null &
    done
}

together() {  # together N: waits for N processes, of which the first one that fails ends the others; returns its code
    local k code
    for ((k = 0; k < $1; k++)); do
        wait -n && continue
        code=$?
        for _ in {1..30}; do [ -z "$(jobs -pr)" ] || sleep 0.1; done  # they may be about to end as well
        # shellcheck disable=SC2046  # the numbers of several processes
        kill -KILL $(jobs -pr) 2>/dev/null
        return $code
    done
}

train() {  # train HOST...: trains on the GPUs of these nodes, of which the first one is this one
    local k world=$(($# * each))
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((NSLOTS > world ? NSLOTS / world : 1))}
    if ((world == 1)); then
        "$python" "${rllab[@]}"
        return
    fi
    export WORLD_SIZE=$world MASTER_ADDR=$1 MASTER_PORT=$((20000 + (JOB_ID + 1009 * ${task:-0}) % 20000))
    for ((k = 1; k < $#; k++)); do
        on "${@:k+1:1}" "ranks $((k * each)); together $each" &
    done
    ranks 0
    together $((each + $# - 1))
}

end() {  # end CODE: ends the job. Grid Engine starts it again, with the same number, if the trainer was warned
    if (($1 == 137)); then
        echo "error: the trainer was killed, most often for want of memory: qsub -l mem_per_core=8G" >&2
    fi
    if [ -e "$RLLAB_AGAIN" ]; then  # it has saved; a crash leaves no such file
        # By exit code 99 alone a job on several nodes would never come back to those (Grid Engine 8.1.9)
        if ((nodes > 1)); then qmod -rj "$JOB_ID${task:+.$task}"; fi
        exit 99
    fi
    if (($1 == 99 || $1 == 100)); then exit 1; fi
    exit "$1"
}
