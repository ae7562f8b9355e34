"""`python -m common.data prepare | convert | inspect`."""

from common.cli import call
from common.data.commands import app

if __name__ == "__main__":
    raise SystemExit(call(app))
