# What the job scripts of both schedulers share: the Python environment, the verb, and whether the job goes on.
# gpu.sbatch and bu.qsub set `job`, the number of the job, and `task`, that of an array's element, and source this file
# with their own arguments. It sets `rllab`, the words for Python.

fail() {
    echo "error: $*" >&2
    exit 2
}

# submit puts --needs NAME=JOB,... first: a job whose inputs others make is a failure without them
if [ "$1" = --needs ]; then
    export RLLAB_NEEDS=$2
    shift 2
fi
verb=train
case $1 in
    train | sweep | grade | eval)
        verb=$1
        shift
        ;;
esac
case $verb:$1 in
    train: | train:-* | train:*=*) fail "the recipe comes first, for example: recipes/grpo.yaml optim.lr=1e-6" ;;
esac
if [ -f slurm/site.sh ]; then source slurm/site.sh || fail "slurm/site.sh ended with $?"; fi

# The environment in which ./lab has installed the lab, on the login node
venv=${RLLAB_VENV:-$PWD/.venv}
python=$venv/bin/python
if [ -L "$python" ] && [ ! -e "$python" ]; then
    fail "$python leads to $(readlink -m "$python"), which is not on this node: load its module in slurm/site.sh"
fi
[ -x "$python" ] || fail "no environment in $venv. On the login node: RLLAB_VENV=$venv ./lab --version"
"$python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)' ||
    fail "$venv has no PyTorch for $("$python" --version): load the module of the Python that built it in slurm/site.sh"

export PYTHONPATH=$PWD/src:$PWD/envs${PYTHONPATH:+:$PYTHONPATH}
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE-1}  # compute nodes have no internet; without this each file costs 23 s of retries
export PYTHONUNBUFFERED=1

# A recipe trains in runs/RECIPE-jobNUMBER, which is the same folder when the job is started again; a run's folder goes
# on, and a stage (run:NAME) has a folder of its own. The elements of an array train with their number as seed, try
# settings of one study, or grade what no other does
again=runs/.again-job$job
if [ "$verb" = train ]; then
    case " $* " in
        *" seed=TASK-1 "*) set -- "${@/#seed=TASK-1/seed=$((task - 1))}" ;;
        *) if [ -n "$task" ]; then set -- "$1" "seed=$task" "${@:2}"; fi ;;
    esac
    run=$(basename "$1" .yaml)-job$job
    for ((k = 2; k < $#; k++)); do
        if [ "${!k}" = --name ]; then run=${*:k+1:1}; fi
    done
    if [ -d "$1" ]; then
        again=$1/again
    elif [[ $1 != run:* ]]; then
        again=runs/$run/again
        set -- "$@" --name "$run"
    fi
fi
rllab=(-m rllab "$verb" "$@")
if [ "$verb" = sweep ] && [ -n "$task" ]; then rllab+=(--array); fi

# A warned process saves, writes this file and ends with 99. In it is how many starts in a row finished no round
export RLLAB_AGAIN=$again
RLLAB_STARTS=$(cat "$RLLAB_AGAIN" 2>/dev/null)
export RLLAB_STARTS
rm -f "$RLLAB_AGAIN"
