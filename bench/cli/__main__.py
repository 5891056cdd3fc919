"""``python -m bench.cli``, for where the command ``rfbench`` is not on the path."""

from bench.cli import main

if __name__ == "__main__":
    main()
