"""The run: optimizer, schedules, checkpoints, and the engine that puts all together."""
