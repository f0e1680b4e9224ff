"""Runs code that the lab does not trust: functions in a process with a deadline, and programs in a sandbox."""
