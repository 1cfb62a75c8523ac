"""Whether a run would work, and what to do if not: ``dtm doctor``."""
