"""What is saved of a program: trees of arrays, random generators, the position in the data."""
