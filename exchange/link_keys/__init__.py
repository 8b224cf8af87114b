"""The keys that sign batches and messages: files, states, introduction and rotation."""
