"""From runs to cohorts: which runs share a program, and how its lanes are laid out."""
