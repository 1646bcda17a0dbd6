"""Training and what keeps a run alive: engines, optimizer and schedule, exact resume, checkpoints, stop signals."""
