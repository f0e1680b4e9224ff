"""Other people's code: processes with a deadline, and programs with few rights."""
