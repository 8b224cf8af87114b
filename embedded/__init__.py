"""The real servers as supervised child processes: what `airlock up` and the tests run on."""
