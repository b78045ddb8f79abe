"""From a request to the plan of its reply: which model answers, bent by which fault, at which pace. Pure."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from crun.sandbox import answers
from crun.sandbox.answers import Answer, Usage
from crun.sandbox.chat import ChatRequest
from crun.sandbox.errors import unknown_model
from crun.sandbox.faults import OVERLOADED, ChosenFault, Fault, fault_models, find_fault, refuse
from crun.sandbox.mutations import Setting
from crun.sandbox.rendering import ChatWriter, Report
from crun.sandbox.steps import Plan, Step

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


class Writer(Protocol):
    """How a dialect writes one answer. Nothing of it is shared between answers."""

    @property
    def late(self) -> tuple[bytes, ...]:
        """Events that have no place behind the last one."""

    def usage(self, told: Any) -> Any:
        """A report of Chat Completions as this dialect tells it."""

    def failure(self, sent: int) -> bytes:
        """The event that tells of an error, after `sent` others."""

    def whole(self, answer: Answer, report: Report) -> Step:
        """The body of an answer that is not streamed, as one step with all its tokens."""

    def steps(self, answer: Answer, report: Report, *, delay_s: float, chunk_delay_s: float) -> Iterator[Step]:
        """The events of a stream, of which each piece of the answer is a step that acts as a chunk."""


def writer_of_chat(request: ChatRequest, created: int) -> Writer:
    """For an answer of Chat Completions at `created` (unix seconds)."""
    tier = request.sandbox.service_tier
    return ChatWriter(request.model, created, includes_usage=request.includes_usage, service_tier=tier)


def plan_reply(request: ChatRequest, writer: Writer, *, presented_key: str, flaky: FlakyCounter) -> Reply:
    """The reply to `request`. Raises ApiError for what the sandbox refuses."""
    model = MODELS.get(request.model, answers.echo)
    chosen = _NO_FAULT if request.model in MODELS else find_fault(request.model)
    if chosen is None:
        raise unknown_model(request.model)
    answer = model(request)
    if chosen.fault.instead is not None:
        return Reply(chosen.fault.instead(presented_key), answer.usage)
    if chosen.fault.fails_first and flaky.must_fail(request, chosen):
        return Reply(refuse(OVERLOADED), answer.usage)
    plan = _stream(request, writer, answer, chosen) if request.stream else _whole(request, writer, answer, chosen)
    return Reply(plan, answer.usage)


def _stream(request: ChatRequest, writer: Writer, answer: Answer, chosen: ChosenFault) -> Plan:
    script, fault = request.sandbox, chosen.fault
    pace = {"delay_s": script.delay_ms / 1000, "chunk_delay_s": script.chunk_delay_ms / 1000}
    steps = writer.steps(answer, _report(request, writer, fault), **pace)
    if fault.stream is not None:
        steps = fault.stream(steps, Setting(chosen.number, answer.usage, writer.late, writer.failure))
    return Plan(200, steps, (*EVENT_STREAM, *fault.headers), head_pause_s=script.first_byte_delay_ms / 1000)


def _whole(request: ChatRequest, writer: Writer, answer: Answer, chosen: ChosenFault) -> Plan:
    fault = chosen.fault
    body = writer.whole(answer, _report(request, writer, fault))
    length, steps = (len(body.payload), (body,)) if fault.body is None else fault.body(body)
    pause_s = (request.sandbox.first_byte_delay_ms + request.sandbox.delay_ms) / 1000
    return Plan(200, steps, (*JSON, *fault.headers), length, pause_s)


def _report(request: ChatRequest, writer: Writer, fault: Fault) -> Report:
    """What is told of usage: the scripted object in place of the true one, else what the fault says."""
    scripted = request.sandbox.usage
    if scripted is not None:
        return lambda _: (scripted,)
    return lambda usage: [writer.usage(told) for told in fault.report(usage)]
