"""What dtm costs, measured against what its users could pick instead.

``python -m benchmarks --help`` says how.  `rows` lists the figures, `contenders`
knows how each library is started, `programs` holds what is run.
"""
