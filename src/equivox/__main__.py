"""``python -m equivox``: the command without its script, for an environment whose ``bin`` is not on the path."""

from equivox.cli.main import run

if __name__ == "__main__":
    run()
