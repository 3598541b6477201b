"""`python -m gencodec`: the command line."""

from gencodec.cli import main

if __name__ == "__main__":
    main()
