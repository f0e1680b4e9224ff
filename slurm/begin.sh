# What the job scripts of both schedulers share: the Python environment, the run's folder, and whether it goes on.
# gpu.sbatch and bu.qsub set `job`, the number of the job, and source this file with their own arguments.

fail() {
    echo "error: $*" >&2
    exit 2
}

case $1 in
    "" | -* | *=*) fail "the recipe comes first, for example: recipes/grpo.yaml optim.lr=1e-6" ;;
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

# A recipe trains in runs/RECIPE-jobNUMBER, which is the same folder when the job is started again; a run's folder goes on
recipe=$1
shift
if [ -d "$recipe" ]; then
    run=$recipe
    train=(-m rllab train "$recipe" "$@")
else
    run=$(basename "$recipe" .yaml)-job$job
    train=(-m rllab train "$recipe" --name "$run" "$@")
    run=runs/$run
fi

# A warned trainer saves, writes this file and ends with 99. In it is how many starts in a row finished no round
export RLLAB_AGAIN=$run/again
RLLAB_STARTS=$(cat "$RLLAB_AGAIN" 2>/dev/null)
export RLLAB_STARTS
rm -f "$RLLAB_AGAIN"
