"""Performs a plan on a connection: pauses, writes, waits for slow readers, and tells the truth log."""

import asyncio

from crun.sandbox.steps import Act, Outcome, Plan, Step
from crun.sandbox.truth import Ticket
from crun.sandbox.wire import Exchange


async def play(plan: Plan, exchange: Exchange, ticket: Ticket) -> Outcome:
    """Write the reply step by step; how it ended. Raises ClientGone when the client is seen to be gone."""
    if plan.head_pause_s:
        await asyncio.sleep(plan.head_pause_s)
    if plan.status is None:
        exchange.begin_raw()
    else:
        exchange.begin(plan.status, plan.headers, plan.length)
    outcome = plan.outcome
    for step in plan.steps:
        if step.pause_s:
            await _write(exchange, b"")
            await asyncio.sleep(step.pause_s)
        await _perform(step, exchange, ticket)
        match step.act:
            case Act.CUT:
                exchange.cut()
                return Outcome.CUT
            case Act.RESET:
                exchange.reset()
                return Outcome.CUT
            case Act.FAIL:
                outcome = Outcome.ERROR
    exchange.finish()
    if exchange.is_blocked:
        await exchange.drained()
    return outcome


async def _perform(step: Step, exchange: Exchange, ticket: Ticket) -> None:
    await _write(exchange, step.payload)
    if step.tokens or step.carries_usage:
        ticket.count(step.tokens, carries_usage=step.carries_usage)
    if step.act is Act.CHUNK:
        ticket.chunk()
        await ticket.pace()
        if not step.pause_s:
            await asyncio.sleep(0)  # a stream without pauses leaves the loop to the others, and to a hang-up
    elif step.act is Act.STALL:
        await asyncio.Event().wait()


async def _write(exchange: Exchange, payload: bytes) -> None:
    exchange.write(payload)
    if exchange.is_blocked:
        await exchange.drained()
