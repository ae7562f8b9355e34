"""Every line of the doctor for one request, in the order in which a person would put things right."""

from __future__ import annotations

from collections.abc import Iterator

from common import plan
from common.errors import UserError
from common.plan import Plan
from common.request import Request
from tools.doctor import inputs, machine
from tools.doctor.line import Line, passed
from tools.doctor.rank_table import rank_table
from tools.planning import answer, question


def examine(request: Request) -> Iterator[Line]:
    """Look at the machine and the inputs; nothing is written.

    What is missing is a line. Raises UserError for a wrong call: an unknown preset, platform or setting.
    """
    planned, missing = _plan(request)
    yield passed("platform", planned.platform_id) if missing is None else missing
    yield from machine.devices(planned.platform_id, planned.cluster.nproc_per_node)
    yield from machine.capabilities(planned.platform_id, planned.preset)
    yield from machine.drivers(planned.platform_id, planned.recipe.versions, planned.spec)
    framework = planned.platform.frameworks[planned.recipe.framework]
    yield from rank_table(framework.rank_table_variables, planned.recipe.launcher, planned.cluster)
    yield from machine.memory(planned.platform_id, planned.preset.memory)
    yield from machine.disk(planned.run, _disk_gib(request))
    yield from machine.port(planned.cluster)
    yield from machine.interpreter(planned.spec)
    if missing is None or request.model is not None:
        yield from inputs.weights(planned)
    if missing is None or request.data is not None:
        yield from inputs.data(planned)
    if missing is None:
        yield inputs.template(planned)


def _plan(request: Request) -> tuple[Plan, Line | None]:
    """The plan; where weights, data or hardware are missing, one with stand-ins and the line that says so."""
    try:
        return plan.make(request), None
    except UserError as error:
        try:
            stand_in = question.ask(request).plan  # raises what is wrong with the call itself
        except UserError:
            raise error from None
        said = " ".join(str(error.problem).split())
        found = said if error.found is None else f"{said} (found {error.found})"
        return stand_in, Line("what is given", "fail", found, error.hint or "give what is missing")


def _disk_gib(request: Request) -> float | None:
    """What the run will write, as `tools plan` computes it; None where it cannot."""
    try:
        found: float = answer.answer(question.ask(request))["disk"]["total"]
    except UserError:
        return None
    return found
