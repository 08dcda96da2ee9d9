"""The two kinds of failure that a user sees as one line."""


class UserError(ValueError):
    """A mistake that the user can mend; the message names what to change, in one line."""


class NotFiniteError(ArithmeticError):
    """A run produced NaN or infinity; the message names the step where it began."""
