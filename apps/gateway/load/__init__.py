"""How busy this worker is: who may begin when many ask at once, and who is sent away when it is too much."""
