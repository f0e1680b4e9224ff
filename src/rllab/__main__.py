"""`python -m rllab` is the command `rllab`; torchrun and Slurm start it this way."""

from rllab.cli import main

main()
