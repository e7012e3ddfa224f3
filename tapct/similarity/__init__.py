"""What the encoders of a task have in common, by their stored features: `tapct compare`."""
