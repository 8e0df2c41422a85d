"""How prompts are drawn: grouped by family, as points or as rows, few of them named."""
