"""Puts each worker together: opens connections, passes them to the activities, closes them in reverse."""
