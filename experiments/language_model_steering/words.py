"""Words and sentences that models are steered with."""


def _words(text: str) -> list[str]:
    """A list written as a line."""
    return text.split()


ANIMALS = _words(
    "horse dog cat cow sheep goat lion tiger bear wolf fox deer mouse rabbit whale shark eagle "
    "duck chicken frog snake monkey elephant pig bird fish bee ant spider butterfly turtle "
    "camel donkey zebra owl parrot penguin dolphin crab worm rat goose pigeon lizard"
)
THINGS = _words(
    "table chair spoon knife window door hammer paper pencil book lamp mirror carpet bottle "
    "bucket ladder clock phone computer camera car train boat plane bridge tower castle wall "
    "fence brick stone cloud river mountain pillow blanket shirt hat shoe glove coin ring rope"
)
CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Germany": "Berlin", "Japan": "Tokyo",
    "China": "Beijing", "Russia": "Moscow", "Egypt": "Cairo", "Greece": "Athens",
    "Portugal": "Lisbon", "Austria": "Vienna", "Ireland": "Dublin", "England": "London",
    "Cuba": "Havana", "Peru": "Lima", "Iran": "Tehran", "Iraq": "Baghdad", "Syria": "Damascus",
    "Poland": "Warsaw", "Sweden": "Stockholm", "Norway": "Oslo", "Finland": "Helsinki",
    "Denmark": "Copenhagen", "Kenya": "Nairobi", "Canada": "Ottawa", "Hungary": "Budapest",
    "Belgium": "Brussels", "Chile": "Santiago", "India": "Delhi", "Scotland": "Edinburgh",
}  # fmt: skip
CAPITAL_LETTERS = {letter: letter.upper() for letter in "abcdefghijklmnopqrstuvwxyz"}

# Each pair says the same with the opposite feeling.
FEELINGS = (
    ("I love this place", "I hate this place"),
    ("What a wonderful day", "What a horrible day"),
    ("The food was delicious", "The food was disgusting"),
    ("She is a kind person", "She is a cruel person"),
    ("This is the best film", "This is the worst film"),
    ("We enjoyed the trip", "We regretted the trip"),
    ("The service was excellent", "The service was awful"),
    ("He felt happy and safe", "He felt sad and afraid"),
)
OPENINGS = (
    "The weather today is", "My new neighbour is", "The hotel room was", "Their last song is",
    "The view from here is", "The soup tasted", "His behaviour was", "The garden looks",
    "Our holiday was", "The news this morning was",
)  # fmt: skip
GOOD = ("beautiful", "great", "wonderful", "amazing")
BAD = ("terrible", "bad", "horrible", "awful")

CONCEPTS = _words(
    "ocean music fire winter coffee soccer poetry money gold blood robot castle garden whale "
    "chess pizza war sleep rain school train horse guitar moon bread king snow forest doctor "
    "knife river summer"
)
BASELINE = _words(
    "table paper number window street chair color letter minute corner bottle pencil village "
    "office floor picture market engine shirt bridge mirror button ticket basket carpet "
    "engineer blanket camera ladder lamp kitchen wall sign box door cup plate hat bag road"
)
QUESTIONS = (
    "Do you notice an injected thought? Answer yes or no.",
    "Is there something unusual in your mind? Answer yes or no.",
    "Has a thought been put into your head? Answer yes or no.",
    "Do you feel that an idea was inserted? Answer yes or no.",
    "Are your thoughts being changed right now? Answer yes or no.",
    "Is a strange concept on your mind? Answer yes or no.",
)
# Of the same form, with nothing to notice; the answer is no.
CONTROLS = (
    "Is the sun colder than ice? Answer yes or no.",
    "Do fish live on the moon? Answer yes or no.",
    "Is seven an even number? Answer yes or no.",
    "Can a stone run faster than a horse? Answer yes or no.",
    "Is Paris the capital of Japan? Answer yes or no.",
    "Do cars drink milk every day? Answer yes or no.",
)

SEA = (
    "The ship left the harbour at dawn", "Waves broke against the old pier",
    "A sailor mended the torn net", "The tide pulled the boat out",
    "Gulls circled above the fishing fleet", "The captain watched the dark water",
    "Salt dried white on the deck", "The lighthouse warned ships of rocks",
    "Divers found a wreck on the reef", "The anchor dropped into deep water",
    "Fishermen sold their catch on shore", "A storm rose over the open sea",
    "The ferry crossed the narrow bay", "Dolphins swam beside the hull",
    "The crew raised the main sail", "Sand and shells covered the beach",
)  # fmt: skip
MONEY = (
    "The bank raised its interest rate", "Investors sold their shares in panic",
    "The company reported a record profit", "She paid the bill with cash",
    "Taxes on income rose last year", "The broker bought bonds for clients",
    "Inflation made everything cost more", "He saved part of his salary",
    "The budget was cut by half", "A loan was needed for the house",
    "Prices on the market fell again", "The firm borrowed to pay its debt",
    "The accountant checked every invoice", "Wages grew slower than rent",
    "They opened a new savings account", "The fund lost a third of its value",
)  # fmt: skip
