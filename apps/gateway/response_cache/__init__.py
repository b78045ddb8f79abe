"""The response cache: who asks the same again gets the same answer, at its own price, and no upstream is called."""
