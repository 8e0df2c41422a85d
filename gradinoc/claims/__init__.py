"""From tables to findings: measures, gates, claims and the verdict. No torch."""
