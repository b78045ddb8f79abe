"""The data path: from a request with a key to a metered answer."""
