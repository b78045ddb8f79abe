"""The sandbox upstream: a model vendor in one process, for a first try and for tests of every fault."""
