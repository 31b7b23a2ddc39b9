"""Training on the host side: cohorts in calls of their programs, epochs, selection, early stopping, progress."""
