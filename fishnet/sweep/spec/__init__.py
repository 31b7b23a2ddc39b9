"""What is asked for: recipes, sweeps, search spaces, their texts and checks."""
