"""``dtm doctor``: says whether a run would work on these machines, and what to do if not."""
