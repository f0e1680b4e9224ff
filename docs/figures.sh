#!/usr/bin/env bash
# Makes the pictures of README.md anew: docs/figures.sh [RUNS]
#
# It trains what is not there yet (about 20 minutes on two cores) and needs chromium for the picture of the board.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${1:-runs}
./lab demo --runs "$runs"
./lab python docs/figures.py "$runs"
./lab eval run:pocket --task pocket --style '{name: budget, budgets: [0, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48]}' \
    --runs "$runs" --figure docs/budget.svg
ls -l docs/capstones.svg docs/board.webp docs/budget.svg
