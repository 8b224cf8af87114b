"""Sealing and sending at one end of the link, receiving at the other, with the tables of both."""
