"""What moves the bytes of the link: HTTP."""
