"""`python -m iterconv`: the script without its file on the path."""

from iterconv.cli import main

if __name__ == "__main__":
    main()
