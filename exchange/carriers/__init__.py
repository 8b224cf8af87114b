"""Carriers move the bytes of the link: HTTP."""
