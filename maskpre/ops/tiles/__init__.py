"""Feature maps of which only the visible part is kept and computed."""
