"""What travels between workers: messages as frames, functions and data as bytes."""
