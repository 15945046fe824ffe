"""What is wrong with an answer to a graded problem, a module a problem."""
