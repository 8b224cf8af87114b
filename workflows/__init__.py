"""Orchestration only: deterministic, no I/O. Each workflow reads as the sentence that its docstring says."""
