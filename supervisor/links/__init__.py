"""The supervisor's side of links: who may come in, what they are given, and notices where there is no link."""
