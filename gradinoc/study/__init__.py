"""What a study asks for: its description, conditions, prompts, traits and ready studies."""
