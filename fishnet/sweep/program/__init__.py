"""The compiled program of a cohort: one train step, its parts, and how lanes are looped over."""
