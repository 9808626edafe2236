"""A small invented world, in which every question has a known answer, to see on it what each method does."""
