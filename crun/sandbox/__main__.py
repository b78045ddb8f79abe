"""`python -m crun.sandbox`: the sandbox upstream without the rest of the command line."""

from crun.sandbox.command import sandbox

if __name__ == "__main__":
    sandbox(prog_name="python -m crun.sandbox")
