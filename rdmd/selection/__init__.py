"""Which of several evaluated generators is handed on: the front under uncertainty, constraints, and the champion.

Pure rules on rows of `reports/metrics.json`; what is registered where is the business of `flows/`.
"""
