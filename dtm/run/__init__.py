"""One worker as it lives: it begins, runs bodies of tasks, talks to the others, ends."""
