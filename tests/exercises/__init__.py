"""Right and wrong answers to the exercises, a file for each chapter."""
