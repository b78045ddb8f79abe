"""`python -m bench.translated`: the dialect code's CPU of a translated chunk, in times of that of one passed on."""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Final, NamedTuple

import click

from apps.gateway.dialects.chat_stream import ChatStream
from apps.gateway.dialects.completions import CompletionsStream
from apps.gateway.dialects.messages.answer import MessagesStream, messages_usage
from apps.gateway.dialects.messages.blocks import Blocks
from apps.gateway.dialects.messages.native import NativeMessages
from apps.gateway.dialects.native_stream import NativeStream
from apps.gateway.dialects.responses.answer import ResponsesStream, begun_response, output_of, responses_usage
from apps.gateway.dialects.responses.native import NativeResponses
from apps.gateway.dialects.responses.request import parse_responses
from apps.gateway.providers import PROVIDERS
from apps.gateway.providers.anthropic_answer import AnthropicStream
from apps.gateway.providers.openai_responses_answer import ResponsesAnswerStream
from apps.usage.contracts import TokenCounts
from bench.streamed import KINDS, STREAMS, some_words

LIMIT: Final = 4.0
CALLERS: Final = ("chat", "messages", "responses", "completions")
CHUNKS: Final = 1_000
_REQUEST: Final = "req_0123456789abcdef0123456789abcdef"
_MODEL: Final = "bench-model"
_ASKED: Final = parse_responses(b'{"model":"bench-model","input":"x","reasoning":{"summary":"auto"}}')
_NATIVE: Final = {("messages", "anthropic"), ("responses", "openai-responses")}
_SAYS_NOTHING: Final = {("completions", "thoughts"), ("completions", "arguments")}
"""What a text completion has no place for."""
Feed = Callable[[bytes], bytes]


class Case(NamedTuple):
    """Pieces of one kind from one dialect to another."""

    caller: str
    upstream: str
    kind: str


CASES: Final = [
    Case(caller, upstream, kind)
    for kind in KINDS
    for caller in CALLERS
    for upstream in STREAMS
    if (caller, kind) not in _SAYS_NOTHING and kind in STREAMS[upstream].pieces
]
PASSED_ON: Final = {kind: Case("chat", "openai", kind) for kind in KINDS}
"""What each is compared with."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(1), help="Medians of so many.")
@click.option("--check", is_flag=True, help="Fail when a limit is missed.")
def main(*, rounds: int, check: bool) -> None:
    """Print, for each kind of piece, the cost from each upstream's dialect to each caller's in times of the cost of
    passing one on.

    All in this process and without I/O: what reads, watches and writes the events of a stream. Every event is a read of
    its own, as it is when a model writes."""
    found = measure(rounds)
    missed = 0
    for kind in KINDS:
        passed_us = found[PASSED_ON[kind]]
        click.echo(f"{kind}: {passed_us:.2f} us to pass one on")
        click.echo(f"{'':<14}" + "".join(f"{upstream:>18}" for upstream in STREAMS))
        for caller in CALLERS:
            ratios = [found.get(Case(caller, upstream, kind), 0.0) / passed_us for upstream in STREAMS]
            missed += sum(ratio > LIMIT for ratio in ratios)
            click.echo(f"{caller:<14}" + "".join(map(_shown, ratios)))
    click.echo(f"limit: {LIMIT:.1f}; {missed} above it")
    sys.exit(1 if check and missed else 0)


def measure(rounds: int) -> dict[Case, float]:
    """The CPU of a chunk in us, the median of these rounds. In each all cases come in turn, and each begins with
    another one."""
    samples: dict[Case, list[float]] = {case: [] for case in CASES}
    for number in range(-1, rounds):  # the first one warms up
        start = number % len(CASES)
        for case in CASES[start:] + CASES[:start]:
            used_us = _once(case)
            if number >= 0:
                samples[case].append(used_us)
    return {case: statistics.median(used) for case, used in samples.items()}


def _once(case: Case) -> float:
    stream = STREAMS[case.upstream]
    feed, events = way(case.caller, case.upstream).joined(), stream.pieces[case.kind](some_words(CHUNKS))
    for event in stream.opening[case.kind]:
        feed(event)
    feed(events[0])
    began, told = time.process_time_ns(), 0
    for event in events[1:]:
        told += len(feed(event)) > 0
    used_ns = time.process_time_ns() - began
    if told != CHUNKS - 1:
        raise click.ClickException(f"{case}: {told} of {CHUNKS - 1} pieces came through")
    return used_ns / told / 1_000


class Way(NamedTuple):
    """A stream's way through the dialects."""

    translate: Feed | None
    """Makes a chat of a read."""
    chat: ChatStream
    render: Feed | None
    """Makes the client's events of the chat's."""

    def joined(self) -> Feed:
        """All of it."""
        translate, watch, render = self.translate, self.chat.feed, self.render
        if translate is None:
            return watch if render is None else lambda received: render(watch(received))
        if render is None:
            return lambda received: watch(translate(received))
        return lambda received: render(watch(translate(received)))


def way(caller: str, upstream: str, note_output: Callable[[str | bytes], None] | None = None) -> Way:
    """That of a stream which begins. `note_output` is the chat's."""
    chat = ChatStream(completion_id="chatcmpl-0", model=_MODEL, choices=1, token_bound=100_000, note_output=note_output)
    if (caller, upstream) in _NATIVE:
        native = _native(caller)
        watched = AnthropicStream(native) if caller == "messages" else ResponsesAnswerStream(native)
        return Way(watched.feed, chat, native.passed)
    translator = PROVIDERS[upstream].translator()
    return Way(None if translator is None else translator.feed, chat, _rendering(caller))


def _native(caller: str) -> NativeStream:
    if caller == "messages":
        return NativeMessages(request_id=_REQUEST, model=_MODEL, usage=dict)
    begun = begun_response(_ASKED, request_id=_REQUEST, model=_MODEL)
    return NativeResponses(begun, request_id=_REQUEST, usage=dict, service_tier=lambda: "default")


def _rendering(caller: str) -> Feed | None:
    if caller == "messages":
        usage, blocks = messages_usage(TokenCounts()), Blocks("0", shows_thoughts=True)
        return MessagesStream(blocks, request_id=_REQUEST, model=_MODEL, opening=usage, usage=lambda: usage).feed
    if caller == "responses":
        begun, counts = begun_response(_ASKED, request_id=_REQUEST, model=_MODEL), responses_usage(TokenCounts())
        output = output_of(_ASKED, _REQUEST)
        return ResponsesStream(begun, output, usage=lambda: counts, service_tier=lambda: "default").feed
    if caller == "completions":
        return CompletionsStream(request_id=_REQUEST, model=_MODEL, echoed="").feed
    return None


def _shown(ratio: float) -> str:
    mark = "  MISSED" if ratio > LIMIT else ""
    return f"{ratio:>9.2f}{mark:<9}" if ratio else f"{'-':>9}{'':<9}"


if __name__ == "__main__":
    main()
