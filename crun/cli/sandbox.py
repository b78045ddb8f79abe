"""`crun sandbox`: the sandbox upstream as a subcommand."""

from crun.sandbox.command import sandbox

command = sandbox
__all__ = ["command", "sandbox"]
