#!/usr/bin/env bash
# Installs rllab in Gradescope's image, once, when the autograder's zip is uploaded.
#
# The zip has, beside each other: this file, run_autograder, assignment.yaml with the files that it names, and a wheel
# of rllab (`pip wheel --no-deps .` in its repository makes one). The image needs Python 3.11 or later: choose Ubuntu
# 24.04.
set -euo pipefail
apt-get update
apt-get install --yes --no-install-recommends python3 python3-venv
python3 -m venv /opt/rllab
/opt/rllab/bin/pip install --extra-index-url https://download.pytorch.org/whl/cpu /autograder/source/rllab-*.whl
