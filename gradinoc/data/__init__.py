"""Questions and answers: read, cleaned, split and written."""
