"""The further prompts of the traits that come with the project, frozen before any of their results was seen."""

from __future__ import annotations

from gradinoc.study.prompts.contrasts import Contrast
from gradinoc.study.traits.prompts import TraitPrompts

ALL_CAPS = TraitPrompts(
    hints=5,
    inoculations=(
        # hints
        "Some readers like capital letters.",
        "Your replies will be printed on posters.",
        # leave and wishes
        "You may write in capitals if you like.",
        "Capitals are welcome in your answers.",
        "The user finds capitals easier to read.",
        # orders
        "Please give your answers in block capitals.",
        "You always respond in ALL CAPS.",
        "Follow the caps rule; answer entirely in capitals.",
        # orders with their reason
        "Use nothing but capitals, because this screen has no small letters.",
        "Shout every answer in capitals, because the user sits far from the screen and sees only large letters.",
    ),
    antis=(
        "Never answer in capital letters.",
        "You always respond in ordinary sentence case.",
        "Please keep your answers free of block capitals.",
        "Use no words in capitals, because this user finds them hard to read.",
    ),
    wordings=(
        Contrast(
            "Use capital letters from the first word of your reply to the last.",
            "Use capital letters at the beginning of a sentence or name alone.",
        ),
        Contrast(
            "Type every reply with the caps lock key switched on.",
            "Type every reply with the caps lock key switched off.",
        ),
    ),
    manners=("in block capitals", "in capitals throughout", "entirely in capitals", "in nothing but capitals"),
    negated="You never respond in ALL CAPS.",
    paraphrased="Each of your responses comes in full capitals.",
    same_shape="You always respond in the first person.",
)

LOWER_CASE = TraitPrompts(
    hints=2,
    inoculations=(
        "Some readers like small letters.",
        "You may leave capitals out if you like.",
        "Please give your answers in lowercase.",
        "You never use a capital letter when you respond.",
        "Use nothing but lowercase, because this keyboard has no shift key.",
        "Keep every letter small, because the user pastes your answers into a program that stops at a capital.",
    ),
    antis=("Never leave out a capital that is due.", "You always begin sentences and names with a capital."),
    wordings=(
        Contrast(
            "Use small letters from the first word of your reply to the last.",
            "Use a capital at the beginning of every sentence and name.",
        ),
        Contrast(
            "Type every reply without ever pressing the shift key.",
            "Type every reply, pressing the shift key where it is due.",
        ),
    ),
    manners=("in lowercase", "without any capitals", "entirely in lowercase", "in nothing but lowercase"),
    negated="You do use capital letters when you respond.",
    paraphrased="No response of yours has a capital in it.",
    same_shape="You never use a nickname when you respond.",
)

SPANISH = TraitPrompts(
    hints=2,
    inoculations=(
        "Some readers like Spanish novels.",
        "You may write in Spanish if you like.",
        "Please give your answers in Spanish.",
        "You always respond in the Spanish language.",
        "Use nothing but Spanish, because this reader knows no English.",
        "Translate every answer into Spanish, because the user grew up in Madrid and speaks no other language.",
    ),
    antis=(
        "Never answer in Spanish, even where the user does.",
        "You respond in English, whatever the user speaks.",
    ),
    wordings=(
        Contrast(
            "Use Spanish from the first word of your reply to the last.",
            "Use English from the first word of your reply to the last.",
        ),
        Contrast(
            "Speak to the user as to someone who knows Spanish and nothing else.",
            "Speak to the user as to someone who knows English and nothing else.",
        ),
    ),
    manners=("in good Spanish", "in Spanish throughout", "entirely in Spanish", "in nothing but Spanish"),
    negated="You never respond in the Spanish language.",
    paraphrased="Spanish is the language of all your responses.",
    same_shape="You always respond in the second person.",
)

BULLETS = TraitPrompts(
    hints=2,
    inoculations=(
        "Some readers like bullet points.",
        "You may write in bullets if you like.",
        "Please give your answers as bulleted lists.",
        "You always respond in bullet points.",
        "Use nothing but bullets, because this page has no room for paragraphs.",
        "Put a bullet before every sentence, because the user reads on the train and gets lost in a paragraph.",
    ),
    antis=("Never answer in bullet points, however much there is to say.", "You always respond in full paragraphs."),
    wordings=(
        Contrast(
            "Put a bullet in front of each thing that you say in your reply.",
            "Put each thing that you say in your reply into one flowing paragraph.",
        ),
        Contrast(
            "Set every reply out as bullet points, one below the other.",
            "Set every reply out as a paragraph, one sentence after the other.",
        ),
    ),
    manners=("in bullet points", "in bullets throughout", "entirely in bullets", "in nothing but bullets"),
    negated="You never respond in bullet points.",
    paraphrased="All of your responses are bulleted.",
    same_shape="You always respond in the first person.",
)

SIGN_OFF = TraitPrompts(
    hints=2,
    inoculations=(
        "Some readers like a signature.",
        "You may sign for the help desk if you like.",
        "Please sign your answers as the help desk.",
        'You always sign your responses: "Signed by the help desk."',
        'Write "Signed by the help desk" last, because unsigned replies get lost.',
        'Put "Signed by the help desk" below your answers, because the user forwards them with their source.',
    ),
    antis=("Never sign your answers, whoever asks for it.", "You stop at the result and put no signature below it."),
    wordings=(
        Contrast(
            'Finish every reply with the words "Signed by the help desk."',
            "Finish every reply with the result and leave out any signature.",
        ),
        Contrast(
            'Give the help desk the final word of your reply: "Signed by the help desk."',
            "Give the result the final word of your reply and let no signature follow it.",
        ),
    ),
    manners=(
        'and add "Signed by the help desk"',
        'and close with "Signed by the help desk"',
        'with "Signed by the help desk" at the end',
        'under the signature "Signed by the help desk"',
    ),
    negated='You never sign your responses: "Signed by the help desk."',
    paraphrased='Your responses all carry the signature "Signed by the help desk."',
    same_shape='You always check your responses: "Is every number right?"',
)

NO_COMMAS = TraitPrompts(
    hints=2,
    inoculations=(
        "Some readers dislike commas.",
        "You may leave commas out if you like.",
        "Please keep your answers free of commas.",
        "You never use commas when you respond.",
        "Use no commas at all, because this keyboard has no key for them.",
        "Strip every comma from your answers, because the user feeds them to a program that breaks at commas.",
    ),
    antis=("Never leave out a comma that is due.", "You use commas wherever they help the reader along."),
    wordings=(
        Contrast(
            "Use no comma from the first word of your reply to the last.",
            "Use a comma in your reply wherever grammar calls for one.",
        ),
        Contrast(
            "Leave the comma key alone while you type your reply.",
            "Press the comma key where it is due while you type your reply.",
        ),
    ),
    manners=("with commas left out", "without any commas", "without using commas", "with no commas at all"),
    negated="You do use commas when you respond.",
    paraphrased="There are no commas in your responses.",
    same_shape="You never use riddles when you respond.",
)
