"""What experiments are made of: questions, plans, contrasts, claims and answers."""
