"""`python -m common.data prepare | convert | inspect`."""

from common.environment import enter_light

if __name__ == "__main__":
    enter_light()

from common.cli import call_app
from common.data.commands import app

if __name__ == "__main__":
    raise SystemExit(call_app(app))
