"""From the tables that a study leaves behind to the numbers that are compared."""
