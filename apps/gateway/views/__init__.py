"""One file an endpoint: read, admit, dispatch, relay."""
