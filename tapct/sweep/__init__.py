"""Sweeps: many encoders on many tasks, by one command that can be stopped and started again."""
