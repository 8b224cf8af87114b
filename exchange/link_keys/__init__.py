"""The keys that sign what crosses: files, states, introduction and rotation."""
