"""Whether a finished run's model keeps what it was asked to keep."""

from __future__ import annotations

from common.errors import RunError
from common.evaluation import result
from common.plan import Plan
from common.run import state


def check(plan: Plan) -> None:
    """Raise RunError where the run is finished, report and all, and a limit in evaluation.json is not kept."""
    file = plan.run / result.FILE
    if not file.is_file() or not all(state.is_done(plan, stage) for stage in plan.stages):
        return
    if problem := result.failed(result.read(file)):
        raise RunError(f"the run is finished, and its model lost too much: {problem}")
