"""What is told of a run: scalars, alarms, the online probe, the report, and steps that went wrong."""
