#!/usr/bin/env bash
# Makes the pictures of README.md and docs/ anew: docs/figures.sh [RUNS]
#
# It trains what is not there yet (about 20 minutes on two cores) and needs chromium for the picture of the board.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${1:-runs}
./lab demo --runs "$runs"
./lab python docs/figures.py "$runs"
./lab eval run:pocket --task pocket --style '{name: budget, budgets: [0, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48]}' \
    --runs "$runs" --figure docs/budget.svg
./lab train earth-lora --runs "$runs" --name earth-lora-1
./lab earth earth-lora-1@* --step 3 --runs "$runs" --figure "$runs/earth.png"
./lab python -c "from PIL import Image; Image.open('$runs/earth.png').convert('RGB').save('docs/earth.webp', quality=70, method=6)"
./lab reasoning run:reasoning --temperature 1.5 --rank-by run:reward-pocket \
    --rank-by '{name: verifier, model: run:verifier-pocket}' --runs "$runs" --figure docs/reasoning.svg
./lab eval run:pocket-tiny run:pocket-small run:pocket --task pocket --style direct,zero-shot-cot --runs "$runs" \
    --figure docs/sizes.svg
for seed in 1 2 3; do  # docs/offline.md
    ./lab train cartpole-replay seed=$seed --runs "$runs" --name replay-s$seed
    data="data=run:replay-s$seed"
    ./lab train offline-bc "$data" seed=$seed --runs "$runs" --name bc-s$seed
    ./lab train offline-bc "$data" seed=$seed best=0.1 --runs "$runs" --name bc-best-s$seed
    ./lab train offline-cql "$data" seed=$seed cql_alpha=0 --runs "$runs" --name naive-s$seed
    ./lab train offline-cql "$data" seed=$seed --runs "$runs" --name cql-s$seed
    ./lab train offline-iql "$data" seed=$seed --runs "$runs" --name iql-s$seed
    ./lab train decision-transformer "$data" seed=$seed --runs "$runs" --name transformer-s$seed
done
./lab python docs/offline_figure.py "$runs" docs/offline.svg
ls -l docs/reasoning.svg docs/sizes.svg docs/capstones.svg docs/board.webp docs/budget.svg docs/earth.webp
