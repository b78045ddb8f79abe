"""The benchmark: what the gateway costs, next to nginx and a direct connection. `make bench`; see README.md here."""
