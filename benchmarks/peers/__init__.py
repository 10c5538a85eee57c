"""The same study, trained the way four kinds of users would: each peer is a script of its own."""
