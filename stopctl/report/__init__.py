"""Reading runs and recorded curves back: what happened, how a run stands, and what other rules would do."""
