# What the job scripts with a vLLM server share. They set its `host`, its `port` and the number of its `gpus`, and source
# this file with their own arguments. It sets `serve`, the words for Python.

export RLLAB_SERVER=http://$host:$port RLLAB_SERVER_LOG=${RLLAB_AGAIN%again}server.log
mkdir -p "${RLLAB_AGAIN%/again}"

recipe=$1
[ -d "$recipe" ] && recipe=$recipe/recipe.yaml
serve=(-m rllab serve "$recipe")
for word in "${@:2}"; do [[ $word == -* || $word != *=* ]] || serve+=("$word"); done
# shellcheck disable=SC2206  # the flags are several words
serve+=(--port "$port" --tensor-parallel-size "$gpus" $RLLAB_SERVER_FLAGS)

first_of() {  # first_of SERVING TRAINING: waits until one of two processes ends, and ends the other; sets `code`
    code=138
    while ((code == 138)); do  # a warning has interrupted `wait`
        wait -n "$1" "$2"
        code=$?
    done
    if jobs -rp | grep -qx "$2"; then  # the server has ended first
        if ((code == 0 || code == 143)); then  # the whole job is being ended, as by preemption; the trainers save
            wait "$2"
            code=$?
        else
            echo "error: the vLLM server has ended with $code. The end of $RLLAB_SERVER_LOG:" >&2
            tail -n 20 "$RLLAB_SERVER_LOG" >&2
            kill "$2"
            exit 3
        fi
    fi
    kill "$1" 2>/dev/null
}
