"""A run on several ranks: what they share, how they save together, and how they load what others saved."""
