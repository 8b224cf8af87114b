"""`python -m cli …`, which `./airlock` runs."""

from cli.program import main

if __name__ == "__main__":
    main()
