"""Training of refiner, scorer and detector on generated data."""
