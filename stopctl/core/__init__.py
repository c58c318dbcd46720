"""The decision itself: standard library only, no clock, no files, no framework."""
