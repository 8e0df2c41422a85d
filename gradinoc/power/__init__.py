"""What a design can decide: simulated studies, power and calibration. No torch."""
