"""The published networks and their checkpoints."""
