"""From a request to the plan of its reply: which model answers, bent by which fault, at which pace. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from crun.sandbox import answers
from crun.sandbox.answers import Answer, Usage
from crun.sandbox.chat import ChatRequest
from crun.sandbox.errors import unknown_model
from crun.sandbox.faults import OVERLOADED, ChosenFault, Fault, fault_models, find_fault, refuse
from crun.sandbox.mutations import Setting
from crun.sandbox.rendering import Report, StreamWriter, render_whole
from crun.sandbox.steps import Plan

MODELS: dict[str, Callable[[ChatRequest], Answer]] = {
    "sandbox-echo": answers.echo,
    "sandbox-tools": answers.call_tool,
    "sandbox-json": answers.write_json,
    "sandbox-vision": answers.describe_images,
}
EVENT_STREAM = (("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache"))
JSON = (("content-type", "application/json"),)
_NO_FAULT = ChosenFault(Fault("answers as it should"))


@dataclass(frozen=True, slots=True)
class Reply:
    """The plan of a reply and the true usage of its answer, were it given whole."""

    plan: Plan
    usage: Usage


def model_names() -> list[str]:
    """Every model that the sandbox lists."""
    return [*MODELS, *fault_models()]


def is_model(name: str) -> bool:
    return name in MODELS or find_fault(name) is not None


class FlakyCounter:
    """Counts failures per model and `user`: N times True, then once False, which starts it over."""

    MAX_COUNTED = 10_000

    def __init__(self) -> None:
        self._failures: dict[tuple[str, str | None], int] = {}

    def must_fail(self, request: ChatRequest, chosen: ChosenFault) -> bool:
        counted = (request.model, request.user)
        failures = self._failures.pop(counted, 0)
        if failures >= chosen.number:
            return False
        if len(self._failures) >= self.MAX_COUNTED:
            self._failures.clear()
        self._failures[counted] = failures + 1
        return True


def plan_reply(request: ChatRequest, *, presented_key: str, created: int, flaky: FlakyCounter) -> Reply:
    """The reply to `request` at `created` (unix seconds). Raises ApiError for what the sandbox refuses."""
    model = MODELS.get(request.model, answers.echo)
    chosen = _NO_FAULT if request.model in MODELS else find_fault(request.model)
    if chosen is None:
        raise unknown_model(request.model)
    answer = model(request)
    if chosen.fault.instead is not None:
        return Reply(chosen.fault.instead(presented_key), answer.usage)
    if chosen.fault.fails_first and flaky.must_fail(request, chosen):
        return Reply(refuse(OVERLOADED), answer.usage)
    plan = _stream(request, answer, chosen, created) if request.stream else _whole(request, answer, chosen, created)
    return Reply(plan, answer.usage)


def _stream(request: ChatRequest, answer: Answer, chosen: ChosenFault, created: int) -> Plan:
    script, fault = request.sandbox, chosen.fault
    tier, asked = script.service_tier, request.includes_usage
    writer = StreamWriter(request.model, created, includes_usage=asked, service_tier=tier)
    pace = {"delay_s": script.delay_ms / 1000, "chunk_delay_s": script.chunk_delay_ms / 1000}
    steps = writer.steps(answer, _report(request, fault), **pace)
    if fault.stream is not None:
        steps = fault.stream(steps, Setting(chosen.number, answer.usage))
    return Plan(200, steps, (*EVENT_STREAM, *fault.headers), head_pause_s=script.first_byte_delay_ms / 1000)


def _whole(request: ChatRequest, answer: Answer, chosen: ChosenFault, created: int) -> Plan:
    fault = chosen.fault
    report, tier = _report(request, fault), request.sandbox.service_tier
    body = render_whole(answer, request.model, created, report=report, service_tier=tier)
    length, steps = (len(body.payload), (body,)) if fault.body is None else fault.body(body)
    pause_s = (request.sandbox.first_byte_delay_ms + request.sandbox.delay_ms) / 1000
    return Plan(200, steps, (*JSON, *fault.headers), length, pause_s)


def _report(request: ChatRequest, fault: Fault) -> Report:
    """What is told of usage: the scripted object in place of the true one, else what the fault says."""
    scripted = request.sandbox.usage
    return fault.report if scripted is None else lambda _: (scripted,)
