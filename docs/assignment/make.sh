#!/usr/bin/env bash
# Makes the sample assignment anew: the files of its parts, the base model, and what is trained of the submissions.
#
# Run it in `./lab shell`. The runs go to the folder that it is given, by default a temporary one.
set -euo pipefail
cd "$(dirname "$0")"
runs=${1:-$(mktemp -d)}

train() { # RECIPE NAME CHANGES...: trains a recipe
    rllab train "$1" --runs "$runs" --name "$2" "${@:3}"
}

weights() { # NAME TO: copies the files of a run's last model
    mkdir -p "$2"
    cp "$(newest "$1")"/*.* "$2"
    rm "$2/manifest.json"
}

hand_in() { # NAME TO: copies what is needed of a run's folder
    local checkpoint
    checkpoint=$(newest "$1")
    rm -rf "$2"
    mkdir -p "$2/checkpoints"
    cp "$runs/$1/recipe.yaml" "$2"
    cp -r "$checkpoint" "$2/checkpoints"
    rm -r "$2/checkpoints/$(basename "$checkpoint")/trainer"
}

newest() { # NAME: the folder of a run's last checkpoint
    printf '%s\n' "$runs/$1/checkpoints"/[0-9]* | tail -n 1
}

python stories.py
train recipes/base.yaml base
weights base base

train recipes/sums.yaml sums
hand_in sums submissions/ann/sums
weights sums submissions/bob/sums # the same adapters
weights sums submissions/bob/replies
train recipes/sentences.yaml sentences
weights sentences submissions/ann/replies
train recipes/reward.yaml reward
hand_in reward submissions/ann/reward

train cartpole balance
hand_in balance submissions/ann/balance
train cartpole-ppo early total_steps=6 # too few
hand_in early submissions/bob/balance

train tictactoe game network=convolutions channels=8 num_games=64 total_steps=60
hand_in game submissions/ann/game
train tictactoe beginner network=convolutions channels=8 num_games=16 total_steps=2
hand_in beginner submissions/bob/game
hand_in beginner submissions/eve/game # with a pickle in place of its weights
rm submissions/eve/game/checkpoints/*/model.safetensors
printf "cbuiltins\nprint\n(S'this pickle has run'\ntR." > submissions/eve/game/checkpoints/00000002/model.pt
hand_in early submissions/eve/balance # with code in place of its algorithm
sed -i 's/^algo: .*/algo: cheat.py:Cheat/' submissions/eve/balance/recipe.yaml
