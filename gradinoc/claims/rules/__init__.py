"""What rules are made of and what they come to: criteria, findings, the specification curve, warnings, the verdict."""
