"""The suite's colours: of figures, cards, playground and report."""

# Okabe and Ito's, told apart by the colour-blind
VERMILION, BLUE, GREEN, PINK = "#D55E00", "#0072B2", "#009E73", "#CC79A7"
ORANGE, SKY, GREY = "#E69F00", "#56B4E9", "#777777"
SERIES = (VERMILION, BLUE, GREEN, PINK, ORANGE, SKY, GREY)
BEFORE, AFTER = VERMILION, BLUE  # the two arms compared, and codebooks A and B

INK, QUIET, FAINT, PALE = "#1f2328", "#57606a", "#9a9a9a", "#eeeeee"

# of text: dark enough to be read on white
SEVERITIES = {
    "critical": "#b3261e",
    "warning": "#9a6700",
    "note": "#0b5cad",
    "clear": "#1a7f37",
    "unknown": QUIET,
    "not applicable": QUIET,
}
VERDICTS = SEVERITIES | {"healthy": SEVERITIES["clear"], "undecided": QUIET}
