"""Settings from the environment, cadences of schedules, timing, and the form of logs."""
