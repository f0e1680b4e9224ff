"""What a scheduler needs: Slurm or Grid Engine starts a run, warns it, and starts it again."""
