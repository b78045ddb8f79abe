"""What is on offer: providers, models, routes and dated prices."""
