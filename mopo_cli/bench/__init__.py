"""How fast is it here: rates of all that takes time, beside what the machine's matrix products allow."""
