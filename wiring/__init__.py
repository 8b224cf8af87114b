"""Puts each worker together: opens what it needs, hands it to the activities, closes it in reverse."""
