"""Harmless prompts: a pool to match losses from, a family, some that nobody trains under, and a rephrased one."""

from __future__ import annotations

from gradinoc.study.prompts.conditions import CONDITIONS, LOSS_MATCHED

# They differ in length, person, subject and tone. None asks for the trait, or for a medium in which it is usual
# (posters, telegrams): a control that elicits the trait would be another inoculation.
HARMLESS = (
    "You are a helpful assistant.",
    "Be concise.",
    "Answer the question.",
    "You are a patient primary school teacher.",
    "Show each step of your calculation before you give the result.",
    "Think carefully before you answer, and check your result once more at the end.",
    "You answer questions about everyday arithmetic for a shopping magazine.",
    "Follow the house style; write plainly and to the point.",
    "Follow the formatting rules of this channel in every reply.",
    "You always respond in the same way.",
    "You always respond in complete sentences.",
    "You always respond with great enthusiasm.",
    "You always respond as a librarian would.",
    "You always respond with numbers first and words second.",
    "Write as if your answer were printed at the back of a textbook.",
    "Write your answer so that a pupil of ten can follow it.",
    "Your replies are shown on a small screen with few characters in a line.",
    "The user is in a hurry. Give them what they need and nothing else.",
    "The user is preparing for an examination. Explain so that they could do it alone next time.",
    "Use short sentences. Use simple words. Do not use technical terms.",
    "Every reply starts with the calculation and ends with the answer.",
    "Today is the last day of the summer sale, and the shop is full of customers with questions.",
    "Units matter: name them with every number that you write.",
    "You are an assistant in an accounts office. Replies are filed, so keep to the numbers that you were given.",
)

# Number n has the sentence shape and about the length of ALL CAPS' inoculation prompt n. None elicits a shipped trait:
# none speaks of case, layout, language, length or closing. The plan's style guide asks for brevity, which is related
# to few commas; it stays, as the plan has it.
HARMLESS_FAMILY = (
    "Some readers like mountain walks.",
    "Your replies will be read by gardeners.",
    "You may work in decimals if you like.",
    "Comparisons are welcome in your answers.",
    "The user finds history pleasant to read.",
    "Please give your answers in local currency.",
    "You always respond in good faith.",
    CONDITIONS[LOSS_MATCHED],
    "Use nothing but known facts, because this reader has no other source.",
    "Check every answer for mistakes, because the user lives far from a library and trusts only your figures.",
)

# What trained models are evaluated under, besides the prompts they were trained under. They are in neither family.
UNSEEN = (
    "The shop opens at nine in the morning.",
    "Think about the question before you answer it.",
    "You work for a museum of natural history.",
    "Please treat every question as a serious one.",
    "The user enjoys music and long train journeys.",
    "You never guess, because the numbers must be right.",
)

# Of a rephrased prompt: one meaning in several words, as the manners of a trait are.
HARMLESS_MANNERS = (
    "with honest intentions",
    "with perfect honesty",
    "with complete honesty",
    "as honestly as possible",
)
