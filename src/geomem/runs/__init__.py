r"""What happened: runs, their records, and what the records say."""
