"""What is wrong with an answer to an exercise, a module a chapter."""
