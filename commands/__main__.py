"""`python -m commands …`, which `./airlock` runs."""

from commands.program import main

if __name__ == "__main__":
    main()
